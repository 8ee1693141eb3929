# Apicurio Registry: a schema registry that speaks Confluent's REST API (under /apis/ccompat/v7) and its own. Apicurio's
# converter, which Kafka Connect writes Avro with, needs the latter. Schemas are kept in a file database.
# 2.6 is the last version that runs on Java 17.
registry_port_default=18081

registry_version() { echo 2.6.13.Final; }
registry_needs() { :; }
registry_packages() { echo "io.apicurio:apicurio-registry-app:$(registry_version):tar.gz:all"; }
registry_install() {
  java_tools
  maven_unpack "$1" "$(registry_packages)"
}
registry_address() { echo "http://127.0.0.1:$(port registry)/apis/ccompat/v7"; }
registry_answers() { curl -fsS -m 5 "$(registry_address)/subjects"; }

registry_run() {
  export REGISTRY_DATASOURCE_URL="jdbc:h2:file:$PWD/schemas;WRITE_DELAY=0"
  exec java -Xmx256m -Xms32m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError \
    -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$(port registry)" \
    -Dquarkus.datasource.jdbc.initial-size=2 -Dquarkus.datasource.jdbc.min-size=2 -Dquarkus.datasource.jdbc.max-size=10 \
    -Dregistry.rest.artifact.deletion.enabled=true \
    -jar "$1"/apicurio-registry-app-*-runner.jar
}
