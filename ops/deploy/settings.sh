# shellcheck shell=bash
# The settings that a deployment has, for the platform and for somebody who works on its store. Sourced by deploy.sh,
# never run.
# shellcheck disable=SC2154 # deploy.sh and common.sh set what is not set here

# NAME=value of what is no secret, one a line.
plain_settings() {
  local name
  printf 'DOCUMENTS_URL=gs://%s/bmw\nKEYS_URL=gs://%s-keys/bmw\nGOOGLE_CLOUD_PROJECT=%s\n' "$bucket" "$bucket" "$project"
  for name in "${!settings[@]}"; do
    [[ "$name" != SET_* ]] || printf '%s=%s\n' "${name#SET_}" "${settings[$name]}"
  done | sort
}

# For --set-env-vars, parted by a sign that no setting holds.
service_settings() {
  local lines
  lines="$(plain_settings)"
  printf '^|^%s' "${lines//$'\n'/|}"
}

# For --set-secrets, each with the version that the environment names.
mounted_secrets() {
  local all
  all="$(printf ',%s' "${own_secrets[@]}" "${given_secrets[@]}")"
  printf '%s' "${all#,}"
}

# What a shell must know to work on the deployment's store as the service does. Prints commands and no secret; the
# secrets come first, so that where one cannot be read nothing names the store yet.
show_settings() {
  local pair secret name line
  for pair in "${own_secrets[@]}" "${given_secrets[@]}"; do
    name="${pair%%=*}" secret="${pair#*=}"
    # shellcheck disable=SC2016 # the shell that evaluates it expands it
    printf 'export %s="$(gcloud secrets versions access %s --secret %s --project %s)"; : "${%s:?could not be read}"\n' \
      "$name" "${secret#*:}" "${secret%:*}" "$project" "$name"
  done
  while IFS= read -r line; do
    printf 'export %s=%q\n' "${line%%=*}" "${line#*=}"
  done < <(plain_settings)
}
