# shellcheck shell=bash
# What deploy.sh's parts share: the environment's file, and how gcloud is asked and told. Sourced, never run.
# shellcheck disable=SC2154,SC2034 # each part sets what another one reads

declare -A settings=()
needed=(SERVICE HEALTH_SERVICE STREAM_SERVICE ENTRY_POINT REGION CONCURRENCY CPU MEMORY MIN_INSTANCES MAX_INSTANCES
  TIMEOUT_S INVOKERS TOKEN_KEYS_VERSION LOG_KEY_VERSION AUDIT_KEY_VERSION)

# An option a line, so that it can be read and still be pasted.
print_command() {
  local word
  printf '  %q' "$1"
  for word in "${@:2}"; do
    [[ "$word" == --* ]] && printf ' \\\n   '
    printf ' %q' "$word"
  done
  printf '\n'
}

# Prints a command and runs it, unless this is a dry run.
run() {
  print_command "$@"
  [[ "$dry_run" == yes ]] || "$@"
}

# Asks gcloud; what it printed is in $answer. Status 1 where there is no such thing. In a dry run, status 2 where gcloud
# cannot be asked; otherwise that is the end.
answer="" errors=""
ask() {
  local said status=0
  answer=""
  if ! command -v gcloud >/dev/null; then
    [[ "$dry_run" == yes ]] || fail "gcloud is not installed"
    return 2
  fi
  if [[ -z "$errors" ]]; then
    errors="$(mktemp)"
    trap 'rm -f "$errors"' EXIT
  fi
  answer="$(gcloud "$@" 2>"$errors")" || status=$?
  said="$(<"$errors")"
  ((status == 0)) && return
  # gcloud's exit status is 1 for everything.
  [[ "$said" =~ (NOT_FOUND|not found|Cannot find|could not be found|Unknown service account) ]] && return 1
  [[ "$dry_run" == yes ]] && return 2
  fail "gcloud $1 $2 $3: ${said:-status $status}"
}

setting() {
  [[ -v "settings[$1]" ]] || fail "ops/environments/$environment.env does not say $1"
  printf '%s' "${settings[$1]}"
}

load_environment() {
  local file="ops/environments/$environment.env" line known
  [[ -n "$environment" ]] || fail "which environment: staging or production? See --help" 2
  if [[ ! "$environment" =~ ^[a-z]+$ || ! -f "$file" ]]; then
    known="$(cd ops/environments && printf '%s ' *.env)"
    fail "unknown environment '$environment'; there are: ${known//.env/}" 2
  fi
  while IFS= read -r line; do
    [[ -z "$line" || "$line" == \#* ]] && continue
    [[ "$line" =~ ^([A-Z][A-Z0-9_]*)=(.*)$ ]] || fail "$file: '$line' is no NAME=value"
    settings["${BASH_REMATCH[1]}"]="${BASH_REMATCH[2]}"
  done <"$file"
  # Here and not where it is used: what fails inside $(...) fails nothing else.
  for line in "${needed[@]}"; do
    setting "$line" >/dev/null
  done
  [[ -n "$region" ]] || region="$(setting REGION)"
  service="$(setting SERVICE)"
}

# Names that follow from the project and the environment; needs.sh makes what has them.
find_project() {
  if [[ -z "$project" ]] && command -v gcloud >/dev/null; then
    project="$(gcloud config get-value project 2>/dev/null || true)"
  fi
  [[ -n "$project" ]] || fail "no project: give --project"
  [[ "$project" =~ ^[a-z0-9.:-]+$ ]] || fail "'$project' is no project id" 2
  where=(--project "$project" --region "$region")
  runtime="draiv-bmw-$environment@$project.iam.gserviceaccount.com"
  builder="draiv-build@$project.iam.gserviceaccount.com"
  deployer="draiv-deploy-$environment@$project.iam.gserviceaccount.com"
  bucket="$project-draiv-$environment"
  secrets=(TOKEN_KEYS=draiv-token-keys LOG_KEY=draiv-log-key AUDIT_KEY=draiv-audit-key)
}
