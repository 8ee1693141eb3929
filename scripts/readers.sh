# Sourced: a Python with DuckDB, Polars, deltalake and Spark, the readers that check what Alluvium writes, and with
# HdrHistogram's own reader of latency files. Sets ALLUVIUM_PYTHON. Installed into a venv of the cache, anew when
# the list below changes. DuckDB's delta extension comes as a package of DuckDB's own version, so the two are pinned together.
#
# Spark needs Java 17 or later; where there is none, it is left out and its tests say so. Its Delta comes by Maven, of the
# version that is made for it. Sets ALLUVIUM_SPARK_JARS.
readers="$ALLUVIUM_CACHE/readers"
packages="duckdb==1.5.5 duckdb-extension-delta==1.5.5 polars==2.1.0 deltalake==1.6.6 pyarrow hdrhistogram"
delta_jars="io.delta:delta-spark_2.13:4.0.0 io.delta:delta-storage:4.0.0"

java_version() { # the first number that `java -version` tells
  java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1
}

need python3 "install Python 3.9 or later with venv (Debian: apt-get install python3-venv)"
with_spark=
if [ "$(java_version)" -ge 17 ] 2>/dev/null; then
  need mvn "install Maven, which fetches Delta for Spark (Debian: apt-get install maven)"
  with_spark=yes
  packages="$packages pyspark==4.0.1"
else
  echo "SKIPPED: no Java 17 or later, so no Spark (Debian: apt-get install openjdk-17-jre-headless maven)" >&2
fi
if [ "$(cat "$readers/.complete" 2>/dev/null)" != "$packages $delta_jars" ]; then
  echo "installing the readers into $readers: $packages" >&2
  python3 -m venv "$readers"
  # shellcheck disable=SC2086  # a list of words
  "$readers/bin/pip" install --quiet --disable-pip-version-check $packages
  if [ -n "$with_spark" ]; then
    rm -rf "$readers/jars"
    for jar in $delta_jars; do
      mvn --quiet --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        "-Dartifact=$jar" "-DoutputDirectory=$readers/jars"
    done
  fi
  echo "$packages $delta_jars" > "$readers/.complete"
fi
export ALLUVIUM_PYTHON="$readers/bin/python"
unset ALLUVIUM_SPARK_JARS
if [ -n "$with_spark" ]; then
  ALLUVIUM_SPARK_JARS=$(printf '%s,' "$readers"/jars/*.jar)
  export ALLUVIUM_SPARK_JARS="${ALLUVIUM_SPARK_JARS%,}"
fi
