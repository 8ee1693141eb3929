# PostgreSQL of the machine's own packages, a cluster of our own with logical decoding. The user alluvium is its superuser.
# Nothing is synced: a killed server loses nothing by that, a machine without power may.
postgres_port_default=15432

postgres_bin() { # the folder of the newest version's binaries
  local found
  found=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/postgres' 2>/dev/null | sort -V | tail -n 1)
  if [ -n "$found" ]; then dirname "$found"; else dirname "$(command -v postgres || echo /nowhere/postgres)"; fi
}
postgres_version() { "$(postgres_bin)/postgres" --version 2>/dev/null | awk '{print $3}' || echo debian; }
postgres_needs() { :; }
postgres_packages() { echo postgresql; }
postgres_install() {
  if [ ! -x "$(postgres_bin)/postgres" ] && [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common   # so that the package starts no server of its own
    echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
  fi
  [ -x "$(postgres_bin)/postgres" ] || debian postgres postgresql
}
postgres_address() { echo "postgres://$user:$password@127.0.0.1:$(port postgres)/alluvium"; }
postgres_answers() {
  PGPASSWORD=$password psql -X -q -h 127.0.0.1 -p "$(port postgres)" -U "$user" -d alluvium -c "SELECT 1"
}
postgres_stop_signal() { echo INT; }   # the fast shutdown: waits for no client

postgres_certificates() { # of a CA of our own, for sslmode=verify-full
  [ ! -f tls/server.crt ] || return 0
  mkdir -p tls
  openssl req -newkey rsa:2048 -nodes -days 3650 -x509 -subj "/CN=Alluvium test CA" -keyout tls/ca.key -out tls/ca.pem 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout tls/server.key -out tls/server.csr 2>/dev/null
  openssl x509 -req -in tls/server.csr -CA tls/ca.pem -CAkey tls/ca.key -CAcreateserial -days 3650 -out tls/server.made \
    -extfile <(echo "subjectAltName=DNS:localhost") 2>/dev/null
  chmod 600 tls/server.key
  mv tls/server.made tls/server.crt
}

postgres_settings() {
  cat <<END
listen_addresses = '127.0.0.1'
port = $(port postgres)
unix_socket_directories = ''
wal_level = logical
max_replication_slots = 64
max_wal_senders = 64
max_connections = 200
max_slot_wal_keep_size = 4GB   # a slot that a test left behind must not fill the disk
fsync = off
full_page_writes = off
shared_buffers = 64MB
timezone = UTC
log_timezone = UTC
ssl = on
ssl_cert_file = '$PWD/tls/server.crt'
ssl_key_file = '$PWD/tls/server.key'
END
}

postgres_run() {
  local bin data as=()
  bin=$(postgres_bin)
  data="data-$(postgres_version | cut -d . -f 1)"
  if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses root, and root's folders let no other user in: its own user gets the right to walk through them.
    as=(setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search)
    chown postgres: .
  fi
  postgres_certificates
  if [ ${#as[@]} -gt 0 ]; then chown postgres: tls/server.key; fi
  postgres_settings > server.conf
  if [ ! -f "$data/made" ]; then
    rm -rf "$data"
    "${as[@]}" "$bin/initdb" --no-sync --pgdata="$data" --username="$user" --pwfile=<(echo "$password") \
      --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    echo "include '../server.conf'" >> "$data/postgresql.conf"
    echo "CREATE DATABASE alluvium" | "${as[@]}" "$bin/postgres" --single -D "$data" postgres
    touch "$data/made"
  fi
  # A killed server's id may stand among the processes until the system has collected it, which PostgreSQL takes for a
  # server that runs.
  if [ -f "$data/postmaster.pid" ] && ended "$(head -n 1 "$data/postmaster.pid")"; then rm "$data/postmaster.pid"; fi
  exec "${as[@]}" "$bin/postgres" -D "$data"
}
