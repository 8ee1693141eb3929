# Sourced: a Python with DuckDB, Polars and deltalake, the readers that check what Alluvium writes, and with
# HdrHistogram's own reader of latency files. Sets ALLUVIUM_PYTHON. Installed into a venv of the cache, anew when
# the list below changes. DuckDB's delta extension comes as a package of DuckDB's own version, so the two are pinned together.
readers="$ALLUVIUM_CACHE/readers"
packages="duckdb==1.5.5 duckdb-extension-delta==1.5.5 polars deltalake pyarrow hdrhistogram"
need python3 "install Python 3.9 or later with venv (Debian: apt-get install python3-venv)"
if [ "$(cat "$readers/.complete" 2>/dev/null)" != "$packages" ]; then
  echo "installing DuckDB, Polars, deltalake and HdrHistogram for Python into $readers" >&2
  python3 -m venv "$readers"
  # shellcheck disable=SC2086  # a list of words
  "$readers/bin/pip" install --quiet --disable-pip-version-check $packages
  echo "$packages" > "$readers/.complete"
fi
export ALLUVIUM_PYTHON="$readers/bin/python"
