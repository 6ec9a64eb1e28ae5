# shellcheck shell=bash
# What a project must have. `doctor` says what is missing, `bootstrap` makes it. Sourced by deploy.sh, never run.
# shellcheck disable=SC2154 # deploy.sh and common.sh set what is not set here

python="${PYTHON:-.venv/bin/python}"

# $1 is `mend` for bootstrap.
look_at_needs() {
  local pair role key="${settings[SET_KMS_KEY]:-}"
  local -a apis=(run cloudbuild artifactregistry secretmanager storage iam iamcredentials sts monitoring logging)
  mending="${1:-}" missing=0
  printf 'Project %s, %s:\n' "$project" "$environment"
  ! serves_cardata || apis+=(cloudscheduler)
  [[ -z "$key" ]] || apis+=(cloudkms)
  need_apis "${apis[@]}"
  need_account "$runtime" "the service runs as"
  need_account "$builder" "the image is built as"
  need_account "$deployer" "the pipeline deploys as"
  need_bucket "$bucket" "links, tokens, commands; old versions are kept" 'True True [0-9]+' --versioning
  # A deleted key must be gone: that is what makes its account's data unreadable, in every copy.
  need_bucket "$bucket-keys" "the accounts' keys; nothing deleted is kept" '(False )? ?True 0?' --no-versioning --clear-soft-delete
  need_lifecycle "$bucket" ops/deploy/lifecycle.json
  # Any other rule there may delete the keys of accounts that are in use.
  need_lifecycle "$bucket-keys" ops/deploy/lifecycle-keys.json
  for pair in "${own_secrets[@]}"; do
    need_secret "${pair%%=*}" "${pair#*=}"
  done
  for pair in "${given_secrets[@]}"; do
    need_given_secret "${pair%%=*}" "${pair#*=}"
  done

  need_binding "$runtime" roles/storage.objectUser "storage buckets" "gs://$bucket"
  need_binding "$runtime" roles/storage.objectUser "storage buckets" "gs://$bucket-keys"
  for pair in "${own_secrets[@]}"; do
    need_access "${pair#*=}"
  done
  [[ -z "$key" ]] || need_binding "$runtime" roles/cloudkms.cryptoKeyEncrypterDecrypter "kms keys" "$key"
  need_binding "$builder" roles/run.builder projects "$project"
  for role in roles/run.sourceDeveloper roles/serviceusage.serviceUsageConsumer roles/monitoring.viewer; do
    need_binding "$deployer" "$role" projects "$project"
  done
  need_binding "$deployer" roles/iam.serviceAccountUser "iam service-accounts" "$runtime" --project "$project"
  need_binding "$deployer" roles/iam.serviceAccountUser "iam service-accounts" "$builder" --project "$project"
  # To prove to Cloud Run who it is when it tries a revision.
  need_binding "$deployer" roles/iam.serviceAccountOpenIdTokenCreator "iam service-accounts" "$deployer" --project "$project"
  need_callers
  ! serves_cardata || need_clock
  note_what_is_unwise

  if [[ -z "$mending" ]]; then
    ((missing == 0)) || fail "$missing missing: the commands above mend it, and so does ./deploy.sh bootstrap $environment"
    printf 'Nothing is missing.\n'
  fi
}

# $1 what it is, $2 the status of asking for it, then what mends it.
settle() {
  local what="$1" status="$2"
  shift 2
  if ((status == 0)); then
    printf 'ok       %s\n' "$what"
    return
  fi
  missing=$((missing + 1))
  printf 'MISSING  %s\n' "$what"
  if [[ "$1" == make_secret ]]; then show_secret "$@"; else print_command "$@"; fi
  [[ -n "$mending" && "$dry_run" == no ]] || return 0
  mend "$@" || fail "this failed. Where it is for want of a right, somebody who has it can run the command as it stands"
}

# What was just enabled or made is not known everywhere for a while: then it is tried again, for three minutes.
mend() {
  local said tries=0 again="$not_enabled|Service account .+ does not exist"
  until CLOUDSDK_CORE_DISABLE_PROMPTS=1 "$@" 2>"$errors"; do
    said="$(<"$errors")"
    printf '%s\n' "$said" >&2
    [[ "$said" =~ $again ]] && ((++tries < 18)) || return 1
    sleep "${RETRY_PAUSE_S:-10}"
  done
  said="$(<"$errors")"
  [[ -z "$said" ]] || printf '%s\n' "$said" >&2
}

need_apis() {
  local name
  local -a absent=()
  ask services list --enabled --project "$project" --format 'value(config.name)' || true
  for name in "$@"; do
    grep -qx "$name.googleapis.com" <<<"$answer" || absent+=("$name.googleapis.com")
  done
  settle "APIs" "${#absent[@]}" gcloud services enable "${absent[@]}" --project "$project"
}

need_account() {
  local status=0
  ask iam service-accounts describe "$1" --project "$project" --format 'value(email)' || status=$?
  settle "account $1: $2" "$status" gcloud iam service-accounts create "${1%%@*}" --project "$project" --display-name "$2"
}

# $3 what describes it when it is right: versions, uniform access, seconds that what is deleted is kept. Then the flags
# that make it so.
need_bucket() {
  local status=0 name="gs://$1" what="$2" right="$3"
  local fields="versioning_enabled,uniform_bucket_level_access,soft_delete_policy.retentionDurationSeconds"
  shift 3
  ask storage buckets describe "$name" --format "value($fields)" || status=$?
  settle "bucket $name" "$status" gcloud storage buckets create "$name" --project "$project" --location "$region" \
    --uniform-bucket-level-access --public-access-prevention
  # One that was just made keeps no versions, and what is deleted for a week.
  status=0
  [[ "${answer//$'\t'/ }" =~ ^$right$ ]] || status=1
  settle "bucket $name: $what" "$status" gcloud storage buckets update "$name" --uniform-bucket-level-access "$@"
}

# $2 the rules by which the bucket forgets. One that has others too is not right either; they are named, for
# mending takes them away.
need_lifecycle() {
  local status=0 name="gs://$1" file="$2" line differing=""
  ask storage buckets describe "$name" --format json || status=$?
  if ((status == 0)); then
    differing="$("$python" -m ops.lifecycle compare "$file" <<<"$answer")" ||
      fail "the rules of $name could not be compared with $file; was \`make venv\` run?"
    [[ -z "$differing" ]] || status=1
  fi
  while IFS= read -r line; do
    [[ "$line" != has* ]] || printf 'note     %s %s, which %s does not\n' "$name" "$line" "$file"
  done <<<"$differing"
  settle "bucket $name: rules of $file" "$status" gcloud storage buckets update "$name" --lifecycle-file "$file"
}

# $1 which setting it holds, $2 its name and version. One that is there is never made again, and never read. Its value
# goes from one program to the next: never into a command line, a file or this script's output.
need_secret() {
  local status=0 name="${2%:*}"
  ask secrets describe "$name" --project "$project" --format 'value(name)' || status=$?
  settle "secret $name" "$status" make_secret "$1" "$name"
  ((status != 0)) || need_version "$2" "$1_VERSION"
}

# The same for one whose value only its owner knows.
need_given_secret() {
  local name="${2%:*}"
  if ask secrets describe "$name" --project "$project" --format 'value(name)'; then
    printf 'ok       secret %s\n' "$name"
    need_version "$2" "SECRET_$1"
    need_access "$2"
    return
  fi
  missing=$((missing + 1))
  printf 'MISSING  secret %s, for %s: only you know its value, which this reads; then ./deploy.sh bootstrap %s again\n' \
    "$name" "$1" "$environment"
  print_command gcloud secrets create "$name" --project "$project" --replication-policy automatic --data-file=-
}

# $1 secret and version, $2 where the version stands.
need_version() {
  local status=0 name="${1%:*}" version="${1#*:}"
  ask secrets versions describe "$version" --secret "$name" --project "$project" --format 'value(state)' || status=$?
  if ((status != 0)) || [[ "$answer" != ENABLED ]]; then
    missing=$((missing + 1))
    printf 'MISSING  secret %s, version %s: correct %s in ops/environments/%s.env\n' "$name" "$version" "$2" "$environment"
  fi
}

need_access() {
  need_binding "$runtime" roles/secretmanager.secretAccessor secrets "${1%:*}" --project "$project"
}

make_secret() {
  local value
  set_maker "$1"
  # Not in a pipe as it is shown: of a maker that fails, an empty secret would stay.
  value="$("${maker[@]}" 2>/dev/null)" && [[ -n "$value" ]] || {
    printf '%s\n' "${maker[*]:0:3} made nothing; was \`make venv\` run?" >&2
    return 1
  }
  printf '%s' "$value" | gcloud secrets create "$2" --project "$project" --replication-policy automatic --data-file=-
}

show_secret() {
  set_maker "$2"
  printf ' %s | tr -d "\\n" |\n    gcloud secrets create %s --project %s --replication-policy automatic --data-file=-\n' \
    "$(printf ' %q' "${maker[@]}")" "$3" "$project"
}

# The command that makes a value, in $maker.
set_maker() {
  maker=("$python" -c 'import secrets; print(secrets.token_hex(32))')
  [[ "$1" != TOKEN_KEYS ]] || maker=("$python" -m ops.keys master)
}

declare -A policies=()

# $1 whose, $2 which role, $3 on what kind of thing, $4 which, then its flags.
need_binding() {
  local status=0 member="$1" role="$2" name="$4"
  local -a kind condition=()
  IFS=' ' read -r -a kind <<<"$3"
  shift 4
  [[ "$member" == *:* || "$member" == all* ]] || member="serviceAccount:$member"
  # A project's policy may hold conditions, and then gcloud asks whether this one has any.
  [[ "${kind[0]}" != projects ]] || condition=(--condition None)
  if [[ ! -v "policies[$name]" ]]; then
    ask "${kind[@]}" get-iam-policy "$name" "$@" --flatten 'bindings[].members' \
      --format 'value(bindings.role,bindings.members)' || true
    policies["$name"]="$answer"
  fi
  grep -qxF "$role"$'\t'"$member" <<<"${policies[$name]}" || status=1
  settle "$role on $name for $member" "$status" \
    gcloud "${kind[@]}" add-iam-policy-binding "$name" "$@" --member "$member" --role "$role" "${condition[@]}"
}

# Who may call. Deploying never grants that: the right to (run.services.setIamPolicy) is an administrator's. Nobody calls
# the stream worker, and only the pipeline's canary has to call something itself.
need_callers() {
  local member name
  local -a members
  for name in "$service" "$(setting HEALTH_SERVICE)"; do
    if ! ask run services describe "$name" "${where[@]}" --format 'value(metadata.name)'; then
      printf 'later    who may call %s: not deployed yet; then ./deploy.sh bootstrap %s again\n' "$name" "$environment"
      continue
    fi
    IFS=, read -r -a members <<<"$(setting INVOKERS)"
    [[ "$name" != "$service" ]] || members+=("$deployer")
    for member in "${members[@]}"; do
      need_binding "$member" roles/run.invoker "run services" "$name" "${where[@]}"
    done
  done
  [[ -n "$(setting INVOKERS)" ]] || printf 'note     INVOKERS in ops/environments/%s.env is empty: nobody else may call\n' "$environment"
}

# What works and is hardly meant.
note_what_is_unwise() {
  local file other max
  max="$(setting MAX_INSTANCES)"
  if ! has_redis; then
    ((max <= 1)) || printf 'note     MAX_INSTANCES is %s without REDIS_URL: each instance reads and counts limits for itself\n' "$max"
    ! serves_cardata || printf 'note     no REDIS_URL: the stream worker has no journal, and writes each message to the store at once\n'
  fi
  for file in ops/environments/*.env; do
    other="${file##*/}" other="${other%.env}"
    [[ "$other" != "$environment" ]] || continue
    is_here "$other" "$file" || continue
    printf 'note     %s is in this project too: whoever deploys %s can reach it. Only a project for each keeps them apart\n' \
      "$other" "$environment"
  done
}

# Whether environment $1, of file $2, has something in this project. Bucket names are the whole world's, but ours hold
# the project's.
is_here() {
  local name
  ! ask storage buckets describe "gs://$project-draiv-$1" --format 'value(name)' || return 0
  name="$(sed -n 's/^SERVICE=//p' "$2")"
  ask run services describe "$name" "${where[@]}" --format 'value(metadata.name)'
}
