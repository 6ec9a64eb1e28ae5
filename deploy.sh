#!/usr/bin/env bash
# Deploys one environment to Cloud Run functions from a clean checkout. `./deploy.sh --help` explains.
set -euo pipefail
IFS=$'\n\t'

usage() {
  cat <<'HELP'
Usage: ./deploy.sh staging|production [--project ID] [--region REGION] [--dry-run]

Deploys the committed state of this checkout as a Cloud Run function.

  staging      service draiv-bmw-staging, entry point bmw_api_staging
  production   service draiv-bmw, entry point bmw_api

  --project ID      Google Cloud project; default: $PROJECT, then gcloud's own
  --region REGION   default: $REGION, then europe-west1
  --dry-run         print the command and change nothing; needs no gcloud when a project is given
  --help            this text

It expects to find, by name (ENV is staging or production):
  service account  draiv-bmw-ENV@PROJECT.iam.gserviceaccount.com, object user of the bucket, accessor of the secrets
  bucket           gs://PROJECT-draiv-ENV, for links, tokens and commands
  secrets          draiv-log-key-ENV (version $LOG_KEY_VERSION, default 1): hashes VINs and callers in logs
                   draiv-audit-key-ENV (version $AUDIT_KEY_VERSION, default 1): seals the audit trail

The service is private: whoever calls it needs the role run.invoker and sends an identity token. Behind that the
service treats all callers as one (CALLERS=open), so let nobody in but your own backend.
HELP
}

fail() {
  printf 'deploy.sh: %s\n' "$1" >&2
  exit "${2:-1}"
}

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

main() {
  local environment="" project="${PROJECT:-}" region="${REGION:-europe-west1}" dry_run=no
  while (($#)); do
    case "$1" in
      --help | -h)
        usage
        return
        ;;
      --dry-run) dry_run=yes ;;
      --project | --region)
        (($# >= 2)) && [[ -n "$2" && "$2" != --* ]] || fail "$1 needs a value" 2
        if [[ "$1" == --project ]]; then project="$2"; else region="$2"; fi
        shift
        ;;
      -*) fail "unknown option $1; see --help" 2 ;;
      *)
        [[ -z "$environment" ]] || fail "one environment at a time; see --help" 2
        environment="$1"
        ;;
    esac
    shift
  done

  local service target
  case "$environment" in
    staging) service=draiv-bmw-staging target=bmw_api_staging ;;
    production) service=draiv-bmw target=bmw_api ;;
    "") fail "which environment: staging or production? See --help" 2 ;;
    *) fail "unknown environment '$environment': staging or production" 2 ;;
  esac

  cd "$(dirname "${BASH_SOURCE[0]}")"
  local commit
  commit="$(git rev-parse --short=12 HEAD)"
  if [[ -n "$(git status --porcelain)" ]]; then
    fail "the checkout has changes that are not committed; what is deployed must be a commit"
  fi
  if [[ -z "$project" ]]; then
    command -v gcloud >/dev/null || fail "no project: give --project"
    project="$(gcloud config get-value project 2>/dev/null || true)"
    [[ -n "$project" ]] || fail "no project: give --project"
  fi

  # THREADS equals the concurrency: with fewer, requests that wait for the maker block those that the cache answers.
  local -a command=(
    gcloud run deploy "$service"
    --project "$project"
    --region "$region"
    --source .
    --function "$target"
    --base-image python313
    --service-account "draiv-bmw-$environment@$project.iam.gserviceaccount.com"
    --concurrency 32
    --cpu 1
    --memory 512Mi
    --min 1
    --max 10
    --timeout 60
    --cpu-boost
    --set-env-vars "THREADS=32,ENVIRONMENT=$environment,CALLERS=open,DOCUMENTS_URL=gs://$project-draiv-$environment/bmw,GOOGLE_CLOUD_PROJECT=$project"
    --set-secrets "LOG_KEY=draiv-log-key-$environment:${LOG_KEY_VERSION:-1},AUDIT_KEY=draiv-audit-key-$environment:${AUDIT_KEY_VERSION:-1}"
    --labels "commit=$commit"
    --no-allow-unauthenticated
    --quiet
  )

  printf 'Deploying commit %s to %s in %s:\n' "$commit" "$service" "$region"
  print_command "${command[@]}"
  if [[ "$dry_run" == yes ]]; then
    printf 'Dry run: nothing was changed.\n'
    return
  fi
  command -v gcloud >/dev/null || fail "gcloud is not installed"
  "${command[@]}"
}

main "$@"
