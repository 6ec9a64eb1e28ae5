# shellcheck shell=bash
# Deploys, and moves traffic. Sourced by deploy.sh, never run.
# shellcheck disable=SC2154 # deploy.sh and common.sh set what is not set here
#
# Two tags say what is what: `canary` is the newest deployment, `previous` had the traffic before it. Both are set before
# anything else, so that going back needs no memory and can be done twice.

deploy() {
  local commit version source
  commit="$(git rev-parse --short=12 HEAD)"
  [[ -z "$(git status --porcelain)" ]] ||
    fail "the checkout has changes that are not committed; what is deployed must be a commit"
  version="$(git show HEAD:common/settings.py | sed -n 's/^VERSION = "\(.*\)"$/\1/p')"
  [[ -n "$version" ]] || fail "common/settings.py names no VERSION"
  printf 'Deploying %s, commit %s, to %s in %s (%s):\n' "$version" "$commit" "$environment" "$project" "$region"

  # A label may hold no dot.
  labels="commit=$commit,version=${version//./-}"
  source=".run/deploy/$commit"
  case "$1" in
    bmw_api) deploy_function "$service" "$(setting ENTRY_POINT)" "$2" ;;
    health) deploy_function "$(setting HEALTH_SERVICE)" health "" ;;
    all)
      deploy_function "$service" "$(setting ENTRY_POINT)" ""
      deploy_function "$(setting HEALTH_SERVICE)" health ""
      [[ ",${settings[SET_PROVIDERS]:-}," != *,cardata,* ]] || deploy_stream "$(setting STREAM_SERVICE)"
      ;;
    stream) deploy_stream "$(setting STREAM_SERVICE)" ;;
  esac
}

# The commit alone, and of it only what is needed: `gcloud run deploy` builds whatever it finds, refuses a base image
# beside a Dockerfile, and writes a .gcloudignore into a checkout that has none.
export_source() {
  run rm -rf "$source"
  run mkdir -p "$source"
  run git archive --output "$source.tar" HEAD "$@"
  run tar -x -f "$source.tar" -C "$source"
}

# $1 service, $2 entry point, $3 percent of a canary: empty for all, 0 for none.
deploy_function() {
  local first=no
  if serving "$1"; then
    run gcloud run services update-traffic "$1" "${where[@]}" --update-tags "previous=$answer" --quiet
  else
    first=yes
  fi
  export_source main.py functions common requirements.txt
  # THREADS equals the concurrency: with fewer, requests that wait for the maker block those that the cache answers.
  # --min is the service's: a revision's own would keep one instance warm for every tag.
  local -a command=(
    gcloud run deploy "$1" "${where[@]}"
    --source "$source"
    --function "$2"
    --base-image python313
    --build-service-account "projects/$project/serviceAccounts/$builder"
    --service-account "$runtime"
    --concurrency "$(setting CONCURRENCY)"
    --cpu "$(setting CPU)"
    --memory "$(setting MEMORY)"
    --min "$(setting MIN_INSTANCES)"
    --max-instances "$(setting MAX_INSTANCES)"
    --timeout "$(setting TIMEOUT_S)"
    --cpu-boost
    --set-env-vars "$(service_settings)|THREADS=$(setting CONCURRENCY)"
    --set-secrets "$(mounted_secrets)"
    --labels "$labels"
    --tag canary
    --quiet
  )
  # The platform refuses --no-traffic for a service that it does not have yet. Later on, who may call is left as it is.
  if [[ "$first" == yes ]]; then command+=(--no-allow-unauthenticated); else command+=(--no-traffic); fi
  run "${command[@]}"
  if [[ "$first" == yes ]]; then
    printf 'The first revision of %s has all traffic, and nobody may call it yet: ./deploy.sh doctor %s\n' "$1" "$environment"
  elif [[ "$3" != 0 ]]; then
    run gcloud run services update-traffic "$1" "${where[@]}" --to-tags "canary=${3:-100}" --quiet
  fi
}

# One instance that is always there, built from the Dockerfile. It serves no callers, so there is nothing to split; while
# two revisions overlap, the worker's own leases see to it that each customer is served by one.
deploy_stream() {
  export_source main.py functions common sandbox ops/docker requirements.txt requirements-sandbox.txt Dockerfile
  run gcloud run deploy "$1" "${where[@]}" \
    --source "$source" \
    --command python3 \
    --args=-m,functions.providers.cardata.stream \
    --build-service-account "projects/$project/serviceAccounts/$builder" \
    --service-account "$runtime" \
    --cpu "$(setting CPU)" \
    --memory "$(setting MEMORY)" \
    --min 1 \
    --max-instances 1 \
    --no-cpu-throttling \
    --set-env-vars "$(service_settings)|CARDATA_STREAM_BIND=0.0.0.0" \
    --set-secrets "$(mounted_secrets)" \
    --labels "$labels" \
    --no-allow-unauthenticated \
    --quiet
}

# The service's settings, for --set-env-vars, parted by a sign that no setting holds.
service_settings() {
  local name
  printf '^|^DOCUMENTS_URL=gs://%s/bmw|KEYS_URL=gs://%s-keys/bmw|GOOGLE_CLOUD_PROJECT=%s' "$bucket" "$bucket" "$project"
  for name in "${!settings[@]}"; do
    [[ "$name" != SET_* ]] || printf '%s\n' "|${name#SET_}=${settings[$name]}"
  done | sort | tr -d '\n'
}

# For --set-secrets, each with the version that the environment names.
mounted_secrets() {
  local pair list=""
  for pair in "${secrets[@]}"; do
    list+=",${pair%%=*}=${pair#*=}-$environment:$(setting "${pair%%=*}_VERSION")"
  done
  printf '%s' "${list#,}"
}

# The one revision that gets the traffic, in $answer; status 1 where there is no such service yet.
serving() {
  local status=0 line
  local -a found=()
  ask run services describe "$1" "${where[@]}" --flatten 'status.traffic[]' \
    --format 'value(status.traffic.percent,status.traffic.revisionName)' || status=$?
  ((status == 1)) && return 1
  if ((status == 2)); then
    printf '(gcloud cannot be asked: %s is assumed to exist, and SERVING_REVISION to serve it)\n' "$1"
    answer=SERVING_REVISION
    return
  fi
  while IFS= read -r line; do
    [[ "$line" =~ ^[1-9][0-9]*[[:space:]](.+)$ ]] && found+=("${BASH_REMATCH[1]}")
  done <<<"$answer"
  ((${#found[@]} == 1)) ||
    fail "the traffic of $1 is split between ${found[*]:-nobody}: ./deploy.sh promote $environment, or rollback, first"
  answer="${found[0]}"
}

promote() {
  run gcloud run services update-traffic "$service" "${where[@]}" --to-tags canary=100 --quiet
}

# The tag goes too, so that no later promote takes what was rolled back for a good one.
roll_back() {
  local -a to=(--to-tags previous=100)
  [[ -z "$1" ]] || to=(--to-revisions "$1=100")
  run gcloud run services update-traffic "$service" "${where[@]}" "${to[@]}" --remove-tags canary --quiet
}

show_status() {
  ask run services describe "$service" "${where[@]}" --flatten 'status.traffic[]' \
    --format 'value(status.traffic.percent,status.traffic.tag,status.traffic.revisionName)' ||
    fail "there is no service $service in $region: ./deploy.sh $environment"
  printf 'percent\ttag\trevision\n%s\n\n' "$answer"
  ask run revisions list --service "$service" "${where[@]}" --limit 5 \
    --format 'value(metadata.name,metadata.labels.version,metadata.labels.commit)' || true
  printf 'revision\tversion\tcommit\n%s\n' "$answer"
}
