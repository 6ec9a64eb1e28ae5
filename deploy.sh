#!/usr/bin/env bash
# Brings a commit to Google Cloud, and back. `./deploy.sh --help` explains; docs/deployment.md tells the whole way.
set -euo pipefail
IFS=$'\n\t'

usage() {
  cat <<'HELP'
Usage: ./deploy.sh staging|production [bmw_api|health|stream|rest|--all] [--canary [PERCENT]] [options]
       ./deploy.sh promote|status|doctor|bootstrap|settings ENV [options]
       ./deploy.sh rollback ENV [REVISION] [--service bmw_api|health] [options]

  staging, production   deploy the committed state of this checkout and give it all traffic; bmw_api if not said
      --canary          give it none, and the tag `canary`: python -m ops.canary ENV goes on from there
      --canary PERCENT  give it so much
      stream            CarData's worker, and the job that renews its links daily
      rest              all but bmw_api: health, and stream where CarData is among the providers
      --all             bmw_api and the rest
  promote ENV           all traffic to the revision with the tag `canary`
  rollback ENV          all traffic to the revision that had it before the last deployment, or to REVISION. The stream
                        worker and its job go back by deploying the older commit
  status ENV            who gets the traffic, and the newest revisions with their commits
  doctor ENV            what is missing in the project, each with the command that mends it; changes nothing
  bootstrap ENV         mends all of it: APIs, accounts with least privilege, buckets, secrets. Again changes nothing
  settings ENV          the commands that give a shell the deployment's settings, for python -m ops.keys and its like:
                        eval "$(./deploy.sh settings ENV)". Secrets are read by them, and not by this

  --project ID          Google Cloud project; default: $PROJECT, then gcloud's own
  --region REGION       default: $REGION, then the environment's
  --dry-run             print every command that would change something, and run none. What gcloud cannot be asked
                        is assumed, and said
  --help                this text

What an environment is stands in ops/environments/ENV.env; its secrets are in Secret Manager.
Exits with 2 where the command line makes no sense, 1 where something is missing or refused, else as gcloud does.
HELP
}

fail() {
  printf 'deploy.sh: %s\n' "$1" >&2
  exit "${2:-1}"
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || fail "needs bash 4.4 or newer; this is $BASH_VERSION"
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=ops/deploy/common.sh
source ops/deploy/common.sh
# shellcheck source=ops/deploy/settings.sh
source ops/deploy/settings.sh
# shellcheck source=ops/deploy/revisions.sh
source ops/deploy/revisions.sh
# shellcheck source=ops/deploy/cardata.sh
source ops/deploy/cardata.sh
# shellcheck source=ops/deploy/needs.sh
source ops/deploy/needs.sh

main() {
  local verb="" canary="" target="" revision="" of="" words=()
  environment="" project="${PROJECT:-}" region="${REGION:-}" dry_run=no
  while (($#)); do
    case "$1" in
      --help | -h) usage && return ;;
      --dry-run) dry_run=yes ;;
      --all) words+=(all) ;;
      --canary)
        canary=0
        if [[ "${2:-}" =~ ^[0-9]+$ ]]; then
          (($2 >= 1 && $2 <= 99)) || fail "--canary takes 1 to 99 percent" 2
          canary="$2"
          shift
        fi
        ;;
      --project | --region | --service)
        (($# >= 2)) && [[ -n "$2" && "$2" != -* ]] || fail "$1 needs a value" 2
        case "$1" in
          --project) project="$2" ;;
          --region) region="$2" ;;
          --service) of="$2" ;;
        esac
        shift
        ;;
      -*) fail "unknown option $1; see --help" 2 ;;
      *) words+=("$1") ;;
    esac
    shift
  done
  case "${words[0]:-}" in
    promote | rollback | status | doctor | bootstrap | settings)
      verb="${words[0]}"
      words=("${words[@]:1}")
      ;;
    *) verb=deploy ;;
  esac
  environment="${words[0]:-}"
  case "$verb" in
    deploy) target="${words[1]:-bmw_api}" ;;
    rollback) revision="${words[1]:-}" ;;
    *) ((${#words[@]} < 2)) || fail "$verb takes one environment and nothing else; see --help" 2 ;;
  esac
  ((${#words[@]} <= 2)) || fail "too many words; see --help" 2
  [[ "$verb" == deploy || -z "$canary" ]] || fail "--canary belongs to a deployment" 2
  [[ "$verb" == rollback || -z "$of" ]] || fail "--service belongs to a rollback" 2

  load_environment
  case "$target" in
    "" | bmw_api | health | rest | all) ;;
    stream) git cat-file -e HEAD:functions/providers/cardata/stream.py 2>/dev/null || fail "this commit has no stream worker" ;;
    *) fail "unknown target '$target': bmw_api, health, stream, rest or --all" 2 ;;
  esac
  [[ -z "$canary" || "$target" == bmw_api ]] || fail "--canary is for bmw_api alone" 2
  case "$of" in
    "" | bmw_api) of="$service" ;;
    health) of="$(setting HEALTH_SERVICE)" ;;
    *) fail "a rollback is of bmw_api or health; '$of' goes back by deploying the older commit" 2 ;;
  esac
  find_project
  case "$verb" in
    deploy) deploy "$target" "$canary" ;;
    promote) promote ;;
    rollback) roll_back "$revision" "$of" ;;
    status) show_status ;;
    doctor) look_at_needs ;;
    bootstrap) look_at_needs mend ;;
    settings) show_settings && return ;; # nothing but what a shell can evaluate
  esac
  [[ "$dry_run" == no ]] || printf 'Dry run: nothing was changed.\n'
}

main "$@"
