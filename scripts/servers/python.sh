# Sourced after common.sh: a Python with librdkafka's client and an Avro reader, for the check and the recording of
# payloads. Sets services_python. Also starts the servers (all, or those in services_wanted), and exports their addresses.
need python3 "install Python 3.9 or later with venv (Debian: apt-get install python3-venv)"
python_version() { echo 1; }
python_packages() { echo "confluent-kafka==2.16.1 fastavro==1.13.1"; }
python_install() {
  python3 -m venv "$1"
  # shellcheck disable=SC2046  # a list of words
  "$1/bin/pip" install --quiet --disable-pip-version-check $(python_packages)
}
install python
services_python="$(installed python)/bin/python"
# shellcheck disable=SC2086  # a list of words
"$root/scripts/services" start ${services_wanted:-}
eval "$("$root/scripts/services" env)"
