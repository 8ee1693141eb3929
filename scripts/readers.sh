# Sourced: a Python with DuckDB, Polars and deltalake, the readers that check what Alluvium writes.
# Sets ALLUVIUM_PYTHON. Installed once into a venv of the cache. DuckDB's delta extension comes as a package of
# DuckDB's own version, so the two are pinned together.
readers="$ALLUVIUM_CACHE/readers"
need python3 "install Python 3.9 or later with venv (Debian: apt-get install python3-venv)"
if [ ! -e "$readers/.complete" ]; then
  echo "installing DuckDB, Polars and deltalake for Python into $readers" >&2
  python3 -m venv "$readers"
  "$readers/bin/pip" install --quiet --disable-pip-version-check \
    duckdb==1.5.5 duckdb-extension-delta==1.5.5 polars deltalake pyarrow
  touch "$readers/.complete"
fi
export ALLUVIUM_PYTHON="$readers/bin/python"
