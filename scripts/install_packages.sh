#!/usr/bin/env bash
# Installs the Debian packages that Ziggurat is built from, and those named beside them, if any is missing. Needs root
# or sudo.
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config       # build
  libopenmpi-dev openmpi-bin             # ranks
  libhdf5-dev                            # token shards
  libyaml-cpp-dev libcli11-dev           # configs and command line
  libdnnl-dev                            # matrix products on the CPU
  libspdlog-dev libfmt-dev               # log
  nlohmann-json3-dev libxxhash-dev       # manifests, metrics; hashes of checkpoint files
  zlib1g-dev libzstd-dev                 # compressed text
  libutf8proc-dev libsentencepiece-dev   # NFC; SentencePiece models
  libcpp-httplib-dev                     # ziggurat serve
  libgtest-dev libgmock-dev              # tests
  libboost-context-dev                   # tests of the CUDA kernels on an emulated device
  libbenchmark-dev                       # benchmarks
  libpcre2-dev                           # test oracle of the tokenizer's split rule
  python3                                # the layering test, the corpus script
)
packages+=("$@")

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "Please install as root: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing with apt: ${missing[*]}"
"${as_root[@]}" apt-get update -q
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
