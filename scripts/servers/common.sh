# Sourced by scripts/services: installs once, starts and ends one process per server, and remembers it in state/NAME.
#
# A server is a file NAME.sh with the functions NAME_version, NAME_needs (the servers that must answer first),
# NAME_packages (what is installed; a change installs anew), NAME_install DIR, NAME_run (becomes the server, by exec),
# NAME_answers (succeeds once it serves), NAME_address, and NAME_port_default as its port.
services="$ALLUVIUM_CACHE/services"
set_number="${ALLUVIUM_SERVICES_SET:-0}"
[[ "$set_number" =~ ^[0-9]$ ]] || { echo "ALLUVIUM_SERVICES_SET is \"$set_number\": give a digit" >&2; exit 2; }
state="$services/state"
[ "$set_number" = 0 ] || state="$services/state-$set_number"
names=(kafka postgres mariadb registry registry_auth connect)
mkdir -p "$services/install" "$state"

# The one user of all servers.
user=alluvium
password=alluvium

for file in "${names[@]}"; do source "$root/scripts/servers/$file.sh"; done

known() {
  local name
  for name in "${names[@]}"; do [ "$name" != "$1" ] || return 0; done
  echo "there is no server \"$1\"; those there are: ${names[*]}" >&2
  exit 2
}

latest_first() { # the given names, those that need others before the others
  local at name
  for ((at = ${#names[@]} - 1; at >= 0; at--)); do
    for name in "$@"; do [ "$name" != "${names[at]}" ] || echo "$name"; done
  done
}

port() { # port NAME: its port in this set of servers; that of the first set may be given by ALLUVIUM_NAME_PORT
  local default="${1}_port_default" variable="ALLUVIUM_${1^^}_PORT"
  echo $((${!variable:-${!default}} + 100 * set_number))
}

# Installing.

installed() { echo "$services/install/$1-$("${1}_version")"; }
is_installed() { [ "$(cat "$(installed "$1")/.complete" 2>/dev/null)" = "$("${1}_packages")" ] && [ -d "$(installed "$1")" ]; }

install() { # install NAME, once: the stamp holds the packages it was made of
  local folder
  ! is_installed "$1" || return 0
  exec 8>"$services/install.lock"
  flock 8
  if ! is_installed "$1"; then
    folder=$(installed "$1")
    echo "installing $1 into $folder" >&2
    rm -rf "$folder"
    mkdir -p "$folder"
    "${1}_install" "$folder" 8>&-
    rmdir "$folder" 2>/dev/null || true   # nothing is in it if Debian's packages are all there is,
    folder=$(installed "$1")              # whose version is known only now
    mkdir -p "$folder"
    "${1}_packages" > "$folder/.complete"
  fi
  exec 8>&-
}

clean_up_installing() {
  exec 8>"$services/install.lock"
  flock 8
  rm -rf "$services/maven"
  exec 8>&-
}

debian() { # debian COMMAND PACKAGE...: sees that the command is there, by installing the packages
  local command=$1; shift
  PATH="$PATH:/usr/sbin" command -v "$command" >/dev/null && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$command is missing: install it (Debian, as root: apt-get install $*)" >&2
    exit 2
  fi
  local apt="apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086  # a list of words
  $apt install "$@" </dev/null >"$services/apt.log" 2>&1 ||
    { apt-get -qq update && $apt install "$@"; } </dev/null >>"$services/apt.log" 2>&1 ||
    { tail -n 20 "$services/apt.log" >&2; echo "could not install $*; all of it is in $services/apt.log" >&2; exit 1; }
}

java_tools() { # a Java runtime of version 17 or later, and Maven to fetch with
  debian java default-jre-headless
  debian mvn maven
}

maven() {
  local goal=$1; shift
  mkdir -p "$services/maven"
  (cd "$services/maven" && mvn -q -B -Dstyle.color=never -Dmaven.repo.local="$services/maven" \
    "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:$goal" "$@" </dev/null >"$services/maven.log" 2>&1) ||
    { tail -n 20 "$services/maven.log" >&2; echo "could not fetch packages; all of it is in $services/maven.log" >&2; exit 1; }
}

maven_jars() { # maven_jars FOLDER GROUP:ARTIFACT:VERSION...: these and all that they need
  local folder=$1 artifact group name version; shift
  local pom="$services/maven/pom.xml"
  mkdir -p "$services/maven"
  {
    echo "<project><modelVersion>4.0.0</modelVersion><groupId>alluvium</groupId><artifactId>services</artifactId>"
    echo "<version>1</version><packaging>pom</packaging><dependencies>"
    for artifact in "$@"; do
      IFS=: read -r group name version <<< "$artifact"
      echo "<dependency><groupId>$group</groupId><artifactId>$name</artifactId><version>$version</version></dependency>"
    done
    echo "</dependencies></project>"
  } > "$pom"
  maven copy-dependencies -f "$pom" -DincludeScope=runtime -DoutputDirectory="$folder"
}

maven_unpack() { # maven_unpack FOLDER GROUP:ARTIFACT:VERSION:tar.gz:CLASSIFIER
  local archives="$services/maven/archives"
  maven copy -Dartifact="$2" -DoutputDirectory="$archives"
  mkdir -p "$1"
  tar -xzf "$archives"/*.tar.gz -C "$1"
  rm -rf "$archives"
}

# Running. A process id is kept with the time its process started at, so that a file that outlived a reboot names nobody.

# Fields of /proc/PID/stat are counted from after the name, which may hold anything: the first is the state.
stat_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f "$2"; }
ended() { case "$(stat_of "$1" 1)" in ""|Z|X) return 0 ;; *) return 1 ;; esac; }
started_at() { stat_of "$1" 20; }
with_children() { echo "$1"; cat "/proc/$1/task"/*/children 2>/dev/null || true; }

pid_of() { # prints the process id of a server that runs
  local pid at
  read -r pid at 2>/dev/null < "$state/$1/pid" || return 1
  [ -n "$at" ] && [ "$(started_at "$pid")" = "$at" ] && ! ended "$pid" && echo "$pid"
}

start() {
  local name=$1 needed pid limit
  for needed in $("${name}_needs"); do start "$needed"; done
  install "$name"
  mkdir -p "$state/$name"
  exec 9>"$state/$name.lock"
  flock 9
  if ! pid_of "$name" >/dev/null; then
    cd "$state/$name" || exit 1
    [ ! -f log ] || mv log log.before
    setsid "${BASH}" "$root/scripts/servers/run.sh" "$name" </dev/null >log 2>&1 8>&- 9>&- &
    pid=$!
    echo "$pid $(started_at "$pid")" > pid
  fi
  limit=$((SECONDS + ${ALLUVIUM_SERVICES_TIMEOUT:-120}))
  until "${name}_answers" >/dev/null 2>&1 9>&-; do
    if ! pid_of "$name" >/dev/null; then failed_to_start "$name" "its process ended"; fi
    if [ $SECONDS -ge $limit ]; then failed_to_start "$name" "it did not answer in time"; fi
    sleep 0.1
  done
  exec 9>&-
}

failed_to_start() {
  tail -n 25 "$state/$1/log" >&2
  echo "could not start $1: $2. The end of $state/$1/log is above; a port in use is changed by ALLUVIUM_*_PORT, data that" \
    "cannot be used is dropped by: scripts/services reset $1" >&2
  exit 1
}

stop() {
  local pid signal=TERM
  exec 9>"$state/$1.lock"
  flock 9
  if pid=$(pid_of "$1"); then
    if declare -F "${1}_stop_signal" >/dev/null; then signal=$("${1}_stop_signal"); fi
    kill -s "$signal" "$pid"
    wait_for_end 60 "$pid" || kill_now "$1"
  fi
  rm -f "$state/$1/pid"
  exec 9>&-
}

# Without the lock: a test may kill what is starting. Its children go too, so that none outlives it.
kill_now() {
  local pid all
  pid=$(pid_of "$1") || { echo "$1 does not run" >&2; return; }
  mapfile -t all < <(with_children "$pid" | tr ' ' '\n' | grep .)
  kill -s KILL "${all[@]}" 2>/dev/null || true
  wait_for_end 30 "${all[@]}" || { echo "could not kill $1 (process $pid)" >&2; exit 1; }
}

wait_for_end() { # wait_for_end SECONDS PID...
  local limit=$((SECONDS + $1)) pid; shift
  for pid in "$@"; do
    until ended "$pid"; do
      [ $SECONDS -lt $limit ] || return 1
      sleep 0.05
    done
  done
}

status() {
  local pid memory=""
  if pid=$(pid_of "$1"); then
    # Of all its processes; what they share is divided among them.
    memory=$(for at in $(with_children "$pid"); do
      awk '/^Pss:/ {print $2}' "/proc/$at/smaps_rollup" 2>/dev/null || true; done | awk '{s += $1} END {printf "%d", s / 1024}')
    if "${1}_answers" >/dev/null 2>&1; then
      printf '%-14s %-12s running  pid %-7s %5s MB  %s\n' "$1" "$("${1}_version")" "$pid" "$memory" "$("${1}_address")"
    else
      printf '%-14s %-12s silent   pid %-7s %5s MB  see %s\n' "$1" "$("${1}_version")" "$pid" "$memory" "$state/$1/log"
    fi
  else
    printf '%-14s %-12s stopped\n' "$1" "$("${1}_version")"
  fi
}

print_env() {
  cat <<END
export ALLUVIUM_KAFKA=127.0.0.1:$(port kafka)
export ALLUVIUM_KAFKA_SASL_SSL=127.0.0.1:$(port kafka_sasl_ssl)
export ALLUVIUM_KAFKA_CA=$state/kafka/tls/ca.pem
export ALLUVIUM_KAFKA_USER=$user
export ALLUVIUM_KAFKA_PASSWORD=$password
export ALLUVIUM_POSTGRES=postgres://$user:$password@127.0.0.1:$(port postgres)/alluvium
export ALLUVIUM_POSTGRES_CA=$state/postgres/tls/ca.pem
export ALLUVIUM_MARIADB=mysql://$user:$password@127.0.0.1:$(port mariadb)/alluvium
export ALLUVIUM_REGISTRY=http://127.0.0.1:$(port registry)/apis/ccompat/v7
export ALLUVIUM_REGISTRY_AUTH=http://127.0.0.1:$(port registry_auth)/apis/ccompat/v7
export ALLUVIUM_REGISTRY_USER=$user
export ALLUVIUM_REGISTRY_PASSWORD=$password
export ALLUVIUM_APICURIO=http://127.0.0.1:$(port registry)/apis/registry/v2
export ALLUVIUM_CONNECT=http://127.0.0.1:$(port connect)
END
}
