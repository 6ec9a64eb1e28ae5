# shellcheck shell=bash
# What deploy.sh's parts share: the environment's file, and how gcloud is asked and told. Sourced, never run.
# shellcheck disable=SC2154,SC2034 # each part sets what another one reads

declare -A settings=()
needed=(SERVICE HEALTH_SERVICE STREAM_SERVICE KEEP_ALIVE_JOB KEEP_ALIVE_SCHEDULE ENTRY_POINT REGION CONCURRENCY CPU MEMORY
  MIN_INSTANCES MAX_INSTANCES TIMEOUT_S INVOKERS TOKEN_KEYS_VERSION LOG_KEY_VERSION AUDIT_KEY_VERSION)
# A project in which nothing was enabled yet has none of the things that are asked for.
not_enabled='(has not been used in project|it is disabled|not enabled on project|SERVICE_DISABLED)'

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
  # Where an API is not enabled gcloud would offer to enable it, and wait for an answer to a question that nobody sees.
  answer="$(CLOUDSDK_CORE_DISABLE_PROMPTS=1 gcloud "$@" 2>"$errors")" || status=$?
  said="$(<"$errors")"
  ((status == 0)) && return
  # gcloud's exit status is 1 for everything.
  [[ "$said" =~ (NOT_FOUND|not found|Cannot find|could not be found|Unknown service account) || "$said" =~ $not_enabled ]] && return 1
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
  service="$(setting SERVICE)" job="$(setting KEEP_ALIVE_JOB)"
  network=()
  if [[ -v "settings[NETWORK]" || -v "settings[SUBNET]" ]]; then
    setting NETWORK >/dev/null
    setting SUBNET >/dev/null
    network=(--network "$(setting NETWORK)" --subnet "$(setting SUBNET)" --vpc-egress private-ranges-only)
  fi
}

# Without SET_PROVIDERS the service goes by its own default: common/settings.py.
serves_cardata() {
  local providers="${settings[SET_PROVIDERS]-mybmw,cardata}"
  [[ ",${providers// /}," == *,cardata,* ]]
}

has_redis() {
  [[ -v "settings[SET_REDIS_URL]" || -v "settings[SECRET_REDIS_URL]" ]]
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
  builder="draiv-build-$environment@$project.iam.gserviceaccount.com"
  deployer="draiv-deploy-$environment@$project.iam.gserviceaccount.com"
  clock="draiv-clock-$environment@$project.iam.gserviceaccount.com"
  bucket="$project-draiv-$environment"
  # Setting=secret:version. The first ones are made here; the others are named in the environment's file.
  own_secrets=("TOKEN_KEYS=draiv-token-keys-$environment:$(setting TOKEN_KEYS_VERSION)"
    "LOG_KEY=draiv-log-key-$environment:$(setting LOG_KEY_VERSION)"
    "AUDIT_KEY=draiv-audit-key-$environment:$(setting AUDIT_KEY_VERSION)")
  given_secrets=()
  local name
  while IFS= read -r name; do
    [[ "$name" == SECRET_* ]] || continue
    [[ "${settings[$name]}" =~ ^[A-Za-z0-9_-]+:[1-9][0-9]*$ ]] ||
      fail "ops/environments/$environment.env: $name is no NAME:VERSION of a secret"
    given_secrets+=("${name#SECRET_}=${settings[$name]}")
  done < <(printf '%s\n' "${!settings[@]}" | sort)
}
