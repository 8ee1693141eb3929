# The registry behind basic authentication: answers 401 to all but the one user, and hands the rest on.
registry_auth_port_default=18082

registry_auth_version() { echo 1; }
registry_auth_needs() { echo registry; }
registry_auth_packages() { :; }
registry_auth_install() { :; }
registry_auth_address() { echo "http://127.0.0.1:$(port registry_auth)/apis/ccompat/v7"; }
registry_auth_answers() { curl -fsS -m 5 -u "$user:$password" "$(registry_auth_address)/subjects"; }
registry_auth_run() {
  exec python3 "$root/scripts/servers/basic_auth.py" "$(port registry_auth)" "$(port registry)" "$user" "$password"
}
