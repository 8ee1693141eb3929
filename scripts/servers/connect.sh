# Kafka Connect with Debezium for PostgreSQL and MariaDB, and converters to JSON and to Avro. One worker in distributed mode:
# connectors and offsets are in topics of the broker, so that a killed worker goes on where it was.
connect_port_default=18083

connect_version() { echo 3.5.0.Final; }   # of Debezium; the worker is Kafka's
connect_needs() { echo kafka; }
connect_packages() {
  echo "io.debezium:debezium-connector-postgres:$(connect_version):tar.gz:plugin"
  echo "io.debezium:debezium-connector-mariadb:$(connect_version):tar.gz:plugin"
  echo "io.apicurio:apicurio-registry-utils-converter:$(registry_version)"
}
connect_install() {
  local packages plugins="$1/plugins"
  mapfile -t packages < <(connect_packages)
  maven_unpack "$plugins" "${packages[0]}"
  maven_unpack "$plugins" "${packages[1]}"
  maven_jars "$plugins/apicurio-converter" "${packages[2]}"
  # What the worker has itself, and loads from itself whatever a plugin brings.
  rm -f "$plugins"/*/kafka-clients-*.jar "$plugins"/*/connect-*.jar "$plugins"/*/slf4j-api-*.jar
  rm -f "$plugins"/*/{zstd-jni,lz4-java,snappy-java}-*.jar
  # Debezium lists its plugins, Apicurio does not: with a list the worker need not search every class, which takes 8 seconds.
  python3 - "$plugins/apicurio-converter/list.jar" <<'END'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as jar:
    jar.writestr("META-INF/services/org.apache.kafka.connect.storage.Converter",
                 "io.apicurio.registry.utils.converter.AvroConverter\nio.apicurio.registry.utils.converter.ExtJsonConverter\n")
END
}
connect_address() { echo "http://127.0.0.1:$(port connect)"; }
connect_answers() { curl -fsS -m 5 "$(connect_address)/connectors"; }

connect_run() {
  cat > worker.properties <<END
bootstrap.servers=127.0.0.1:$(port kafka)
group.id=alluvium-connect
listeners=http://127.0.0.1:$(port connect)
rest.advertised.host.name=127.0.0.1
plugin.path=$1/plugins
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter.schemas.enable=false

config.storage.topic=connect-configs
config.storage.replication.factor=1
offset.storage.topic=connect-offsets
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.topic=connect-status
status.storage.replication.factor=1
status.storage.partitions=1
offset.flush.interval.ms=1000

# One that was killed is missed after six seconds, and its work is not kept waiting for its return.
session.timeout.ms=6000
heartbeat.interval.ms=1000
scheduled.rebalance.max.delay.ms=0
task.shutdown.graceful.timeout.ms=5000
END
  kafka_java 512 "$(installed kafka)/libs/*" org.apache.kafka.connect.cli.ConnectDistributed worker.properties
}
