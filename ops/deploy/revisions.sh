# shellcheck shell=bash
# Deploys, and moves traffic. Sourced by deploy.sh, never run.
# shellcheck disable=SC2154 # deploy.sh and common.sh set what is not set here
#
# Two tags say what is what: `canary` is the newest deployment, `previous` had the traffic before it. Both are set before
# any traffic moves, so that going back needs no memory.

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
    stream) deploy_cardata ;;
    all | rest)
      [[ "$1" == rest ]] || deploy_function "$service" "$(setting ENTRY_POINT)" ""
      deploy_function "$(setting HEALTH_SERVICE)" health ""
      ! serves_cardata || deploy_cardata
      ;;
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
  local before=""
  ! serving "$1" || before="$answer"
  export_source main.py functions common requirements.txt
  # THREADS equals the concurrency: with fewer, requests that wait for the maker block those that the cache answers.
  # --min and --max are the service's: a revision's own minimum would keep one instance warm for every tag, and its own
  # maximum could not be raised without a new revision.
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
    --max "$(setting MAX_INSTANCES)"
    --max-instances default
    --timeout "$(setting TIMEOUT_S)"
    --cpu-boost
    "${network[@]}"
    --set-env-vars "$(service_settings)|THREADS=$(setting CONCURRENCY)"
    --set-secrets "$(mounted_secrets)"
    --labels "$labels"
    --tag canary
    --quiet
  )
  # The platform refuses --no-traffic for a service that it does not have yet. Later on, who may call is left as it is.
  if [[ -z "$before" ]]; then command+=(--no-allow-unauthenticated); else command+=(--no-traffic); fi
  run "${command[@]}"
  if [[ -z "$before" ]]; then
    printf 'The first revision of %s has all traffic, and nobody may call it yet: ./deploy.sh doctor %s\n' "$1" "$environment"
    return
  fi
  # Not before the new revision is there: a build that fails must leave the way back as it was.
  run gcloud run services update-traffic "$1" "${where[@]}" --update-tags "previous=$before" --quiet
  [[ "$3" == 0 ]] || run gcloud run services update-traffic "$1" "${where[@]}" --to-tags "canary=${3:-100}" --quiet
}

# The one revision that gets the traffic, in $answer; status 1 where there is no such service yet.
serving() {
  local status=0 line
  local -a found=()
  ask run services describe "$1" "${where[@]}" --flatten 'status.traffic[]' \
    --format 'value(status.traffic.percent,status.traffic.revisionName)' || status=$?
  ((status == 1)) && return 1
  if ((status == 2)); then
    printf '(gcloud cannot be asked: %s is taken for a service that does not exist yet)\n' "$1"
    return 1
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

# $1 a revision, or nothing for the one that had the traffic before; $2 the service. The tag goes too, so that no later
# promote takes what was rolled back for a good one.
roll_back() {
  local to="$1" name="$2" line canary="" previous="" status=0 all=""
  local -a change=(--to-tags previous=100)
  [[ -z "$to" ]] || change=(--to-revisions "$to=100")
  read_traffic "$name" || status=$?
  if ((status == 2)); then
    printf '(gcloud cannot be asked: who serves %s is not looked at)\n' "$name"
  else
    while IFS= read -r line; do
      [[ "$line" =~ ^([0-9]*)$'\t'([^$'\t']*)$'\t'(.+)$ ]] || continue
      [[ "${BASH_REMATCH[1]}" != 100 ]] || all="${BASH_REMATCH[3]}"
      [[ "${BASH_REMATCH[2]}" != canary ]] || canary="${BASH_REMATCH[3]}"
      [[ "${BASH_REMATCH[2]}" != previous ]] || previous="${BASH_REMATCH[3]}"
    done <<<"$answer"
    to="${to:-$previous}"
    if [[ -z "$to" ]]; then
      show_revisions "$name"
      fail "nothing says which revision of $name served before: name one"
    fi
    # Where a canary waits without traffic, taking its tag away is worth the while.
    if [[ "$to" == "$all" && (-z "$canary" || "$canary" == "$to") ]]; then
      show_revisions "$name"
      fail "$to has all traffic of $name already, and nothing was changed; another one can be named"
    fi
  fi
  run gcloud run services update-traffic "$name" "${where[@]}" "${change[@]}" --remove-tags canary --quiet
}

# Percent, tag and revision of a service, in $answer; statuses as ask's.
read_traffic() {
  local status=0
  ask run services describe "$1" "${where[@]}" --flatten 'status.traffic[]' \
    --format 'value(status.traffic.percent,status.traffic.tag,status.traffic.revisionName)' || status=$?
  ((status != 1)) || fail "there is no service $1 in $region: ./deploy.sh $environment"
  return "$status"
}

show_revisions() {
  ask run revisions list --service "$1" "${where[@]}" --limit 5 \
    --format 'value(metadata.name,metadata.labels.version,metadata.labels.commit)' || true
  printf 'revision\tversion\tcommit\n%s\n' "$answer"
}

show_status() {
  local name
  for name in "$service" "$(setting HEALTH_SERVICE)" "$(setting STREAM_SERVICE)"; do
    if [[ "$name" != "$service" ]] &&
      ! ask run services describe "$name" "${where[@]}" --format 'value(metadata.name)'; then
      continue
    fi
    read_traffic "$name" || fail "gcloud cannot be asked"
    printf '%s\npercent\ttag\trevision\n%s\n\n' "$name" "$answer"
    show_revisions "$name"
    printf '\n'
  done
  ask run jobs describe "$job" "${where[@]}" \
    --format 'value(metadata.name,metadata.labels.version,metadata.labels.commit)' || return 0
  printf 'job\tversion\tcommit\n%s\n' "$answer"
}
