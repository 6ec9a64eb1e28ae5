# shellcheck shell=bash
# What CarData needs beside the service: the stream worker, and the job that renews each link daily. Sourced by
# deploy.sh, never run.
# shellcheck disable=SC2154 # deploy.sh, common.sh and revisions.sh set what is not set here

deploy_cardata() {
  deploy_stream "$(setting STREAM_SERVICE)"
  deploy_keep_alive "$(setting STREAM_SERVICE)"
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
    "${network[@]}" \
    --set-env-vars "$(service_settings)|CARDATA_STREAM_BIND=0.0.0.0" \
    --set-secrets "$(mounted_secrets)" \
    --labels "$labels" \
    --no-allow-unauthenticated \
    --quiet
}

# The job's image is the worker's: `gcloud run jobs deploy` builds as no account of ours. Who starts it daily is
# bootstrap's to say.
deploy_keep_alive() {
  local image=STREAM_IMAGE known=yes
  ask run jobs describe "$job" "${where[@]}" --format 'value(metadata.name)' || known=no
  if [[ "$dry_run" == yes ]]; then
    printf '(STREAM_IMAGE stands for the image that was just built)\n'
  else
    ask run services describe "$1" "${where[@]}" --format 'value(spec.template.spec.containers[0].image)' ||
      fail "$1 was deployed and is not there"
    image="$answer"
  fi
  run gcloud run jobs deploy "$job" "${where[@]}" \
    --image "$image" \
    --command python3 \
    --args=-m,functions.providers.cardata.keep_alive \
    --service-account "$runtime" \
    --cpu "$(setting CPU)" \
    --memory "$(setting MEMORY)" \
    --max-retries 1 \
    --task-timeout 30m \
    "${network[@]}" \
    --set-env-vars "$(service_settings)" \
    --set-secrets "$(mounted_secrets)" \
    --labels "$labels" \
    --quiet
  [[ "$known" == yes ]] || printf 'Nobody starts %s yet: ./deploy.sh bootstrap %s\n' "$job" "$environment"
}

# Who starts the job, and that somebody does.
need_clock() {
  local status=0 uri="https://run.googleapis.com/v2/projects/$project/locations/$region/jobs/$job:run"
  local -a at=(--project "$project" --location "$region")
  need_account "$clock" "the scheduler starts the daily job as"
  if ! ask run jobs describe "$job" "${where[@]}" --format 'value(metadata.name)'; then
    printf 'later    who starts %s daily: not deployed yet; then ./deploy.sh bootstrap %s again\n' "$job" "$environment"
    return
  fi
  need_binding "$clock" roles/run.invoker "run jobs" "$job" "${where[@]}"
  ask scheduler jobs describe "$job" "${at[@]}" --format 'value(state)' || status=$?
  if ((status == 0)) && [[ "$answer" == PAUSED ]]; then
    settle "$job is started daily: paused" 1 gcloud scheduler jobs resume "$job" "${at[@]}"
    return
  fi
  settle "$job is started daily" "$status" gcloud scheduler jobs create http "$job" "${at[@]}" \
    --schedule "$(setting KEEP_ALIVE_SCHEDULE)" --time-zone Etc/UTC --uri "$uri" --http-method POST \
    --oauth-service-account-email "$clock"
}
