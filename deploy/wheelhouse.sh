#!/bin/sh
# All that an installation without a network needs: wheels at the locked versions, and their
# digests. The second argument names extras: without "mark" there is no torch, and what is
# installed strips only.
#
#   deploy/wheelhouse.sh FOLDER [EXTRAS]
#   python3 -m venv /opt/miadmark
#   /opt/miadmark/bin/pip install --no-index --find-links FOLDER 'miadmark[EXTRAS]'
#
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes torch without CUDA.
set -eu

folder=${1:?usage: deploy/wheelhouse.sh FOLDER [EXTRAS]}
extras=${2-codecs,desk,hsm,web}
source=$(cd "$(dirname "$0")/.." && pwd)

mkdir -p "$folder"
# From a copy, so that nothing is built within the source tree.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for part in pyproject.toml README.md LICENSE dicom_node miadmark_core; do
  cp -R "$source/$part" "$copy/"
done
"${PYTHON:-python3}" -m pip wheel --quiet --wheel-dir "$folder" \
  --constraint "$source/requirements.lock" "$copy${extras:+[$extras]}"
(cd "$folder" && sha256sum -- *.whl > SHA256SUMS)
echo "$folder: $(ls "$folder"/*.whl | wc -l) wheels, $(du -sh "$folder" | cut -f 1)"
