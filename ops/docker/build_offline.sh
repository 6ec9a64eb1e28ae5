#!/usr/bin/env bash
# Builds the Dockerfile without an engine and without an image registry, on a Debian root file system, and tries the
# result under runc. docs/docker.md says what that proves and what it does not. Needs root, and from apt: buildah,
# debootstrap, runc. Takes about three minutes and 4 GB beside it.
set -euo pipefail
IFS=$'\n\t'
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for tool in buildah debootstrap runc; do
  command -v "$tool" >/dev/null || {
    printf 'build_offline.sh: %s is not installed\n' "$tool" >&2
    exit 1
  }
done

work="$(mktemp -d)"
images=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
cleanup() {
  buildah "${images[@]}" rm --all >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

step() { printf '\n==> %s (%d s)\n' "$1" "$SECONDS"; }

# What pip is told on this machine (mirrors, certificates) holds inside as well, and stays out of the image.
inside=(--isolation chroot)
for place in /etc/pip.conf /etc/ssl/certs; do
  [[ -e "$place" ]] && inside+=(--volume "$place:$place:ro")
done

step 'A Debian with Python, in place of the base image'
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip bookworm "$work/debian" \
  >"$work/debootstrap.log" || { tail -20 "$work/debootstrap.log" >&2 && exit 1; }
rm -rf "$work/debian/var/cache/apt" "$work/debian/var/lib/apt/lists"
base="$(buildah "${images[@]}" from scratch)"
buildah "${images[@]}" copy --quiet "$base" "$work/debian" / >/dev/null
# As the official image does: a current pip. Debian's is of 2023.
buildah "${images[@]}" run "${inside[@]}" "$base" -- \
  python3 -m pip install --quiet --break-system-packages --root-user-action=ignore --upgrade pip
buildah "${images[@]}" commit --quiet --rm "$base" localhost/python-base >/dev/null
rm -rf "$work/debian"

build() {
  step "The Dockerfile, target $1"
  buildah "${images[@]}" bud --quiet "${inside[@]}" --network host --format docker --pull-never \
    --build-arg PYTHON_IMAGE=localhost/python-base --target "$1" --tag "localhost/draiv-$1" .
}
build api
build sandbox

step 'The image, running'
buildah "${images[@]}" inspect --type image localhost/draiv-api >"$work/image.json"
rootfs="$(buildah "${images[@]}" mount "$(buildah "${images[@]}" from --pull-never localhost/draiv-api)")"
python3 -m ops.docker.try_image --runc "$rootfs" --image "$work/image.json"
printf 'size: %d MB, of which packages %d MB and our code %d MB\n' \
  "$(du -sm "$rootfs" | cut -f1)" "$(du -sm "$rootfs/opt/venv" | cut -f1)" "$(du -sm "$rootfs/app" | cut -f1)"
step 'Done'
