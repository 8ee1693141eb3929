# MariaDB of the machine's own packages, with a row-based binary log and GTIDs. The user alluvium has every right,
# replication included.
mariadb_port_default=13306

mariadb_version() { mariadbd_path --version 2>/dev/null | sed 's/.*Ver \([0-9.]*\).*/\1/' || echo debian; }
mariadbd_path() { PATH="$PATH:/usr/sbin" mariadbd "$@"; }
mariadb_needs() { :; }
mariadb_packages() { echo "mariadb-server-core mariadb-client-core"; }
mariadb_install() {
  debian mariadbd mariadb-server-core mariadb-client-core   # the core packages have no service that would start
  debian mariadb mariadb-client-core
}
mariadb_address() { echo "mysql://$user:$password@127.0.0.1:$(port mariadb)/alluvium"; }
mariadb_answers() {
  mariadb --no-defaults -h 127.0.0.1 -P "$(port mariadb)" -u "$user" -p"$password" -e "SELECT 1" alluvium
}

mariadb_run() {
  if [ ! -d data/mysql ]; then
    rm -rf making
    mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$PWD/making" --auth-root-authentication-method=normal \
      --skip-test-db --skip-name-resolve
    mv making data
  fi
  cat > init.sql <<END
CREATE DATABASE IF NOT EXISTS alluvium CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS '$user'@'%' IDENTIFIED BY '$password';
GRANT ALL PRIVILEGES ON *.* TO '$user'@'%' WITH GRANT OPTION;
END
  PATH="$PATH:/usr/sbin"
  # Every commit reaches the system's cache, which outlives a killed server; nothing is synced.
  exec mariadbd --no-defaults --user="$(id -un)" --datadir="$PWD/data" --init-file="$PWD/init.sql" \
    --bind-address=127.0.0.1 --port="$(port mariadb)" --socket=mariadb.sock --pid-file=mariadb.pid --skip-name-resolve \
    --server-id=1 --log-bin=binlog --binlog-format=ROW --binlog-row-image=FULL --binlog-row-metadata=FULL \
    --gtid-strict-mode=ON --expire-logs-days=2 --sync-binlog=0 --innodb-flush-log-at-trx-commit=2 \
    --innodb-buffer-pool-size=64M --character-set-server=utf8mb4 --default-time-zone=+00:00 --max-connections=200
}
