#!/usr/bin/env bash
# Packs what checks Ziggurat on a machine that has a GPU and little else: the binaries, stripped, the libraries that
# such a machine lacks, the configs and run.sh.
#   cmake --preset cuda && cmake --build --preset cuda --target ziggurat ziggurat_cuda_products
#   scripts/gpu/bundle.sh OUT.tar.gz [BUILD_DIR]      by default build/cuda
# There: tar -xzf OUT.tar.gz && ziggurat_gpu/run.sh
# Of there are taken: glibc, this one's version or a later one; NVIDIA's driver; and CUDA's libraries, which are far
# larger than all the rest and are named in ziggurat_gpu/NEEDS. A build for another CPU than this machine's is
# configured with -DZIGGURAT_MARCH=x86-64-v3.
set -euo pipefail
[ $# -ge 1 ] && [ $# -le 2 ] && [[ $1 != -* ]] || { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }
out=$(realpath -m "$1")
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
build=${2:-build/cuda}
limit=$((64 << 20))

fail() { echo "bundle: $*" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/ziggurat_gpu
mkdir -p "$bundle"/{bin,lib,openmpi/components,openmpi/share}
: >"$bundle/NEEDS"

for name in ziggurat ziggurat_cuda_products; do
  program=$build/$name
  [ -x "$program" ] || fail "$program is not built: cmake --build $build --target ziggurat ziggurat_cuda_products"
  strip -o "$bundle/bin/$name" "$program"
done
"$build/ziggurat" --version >"$work/version"
grep -q '^CUDA *built in' "$work/version" || fail "$build/ziggurat has no CUDA: configure with -DZIGGURAT_CUDA=ON"
# Where this machine has its libraries says nothing there.
printf 'file(RPATH_REMOVE FILE "%s")\n' "$bundle"/bin/* >"$work/no_rpath.cmake"
cmake -P "$work/no_rpath.cmake" >/dev/null

# Open MPI loads the rest of itself when it starts. Without the networks, whose libraries are many.
mpi_path() { ompi_info --path "$1" --parsable | cut -d : -f 3; }
components=$(mpi_path pkglibdir)
[ -d "$components" ] || fail "Open MPI's components are not in $components"
for component in "$components"/mca_*.so; do
  case $(basename "$component") in
    *ofi*|*ucx*|*psm*|*openib*|*verbs*|*memheap*|*spml*|*sshmem*|*scoll*|*atomic*|*monitoring*|*romio*) ;;
    *) cp -L "$component" "$bundle/openmpi/components/" ;;
  esac
done
cp -rL "$(mpi_path pkgdatadir)/." "$bundle/openmpi/share/"  # the texts of its errors

of_there='^(linux-vdso|ld-linux.*|libc|libm|libdl|librt|libpthread|libresolv|libutil|libnsl)\.so'
of_cuda='^(libcu(da|dart|blas|blasLt|dnn.*)|libnv.*|libnccl)\.so'
LD_LIBRARY_PATH=$(dirname "$components"):${LD_LIBRARY_PATH:-} \
  ldd "$build/ziggurat" "$build/ziggurat_cuda_products" "$bundle"/openmpi/components/*.so 2>/dev/null |
  awk '$2 == "=>" { print $1, $3 }' | sort -u >"$work/libraries"
while read -r name path; do
  if [[ $name =~ $of_cuda ]]; then
    echo "$name" >>"$bundle/NEEDS"
  elif ! [[ $name =~ $of_there ]]; then
    [ -e "$path" ] || fail "$name is nowhere on this machine"
    cp -L "$path" "$bundle/lib/$name"
  fi
done <"$work/libraries"
sort -u -o "$bundle/NEEDS" "$bundle/NEEDS"
chmod -R u+w "$bundle"
strip --strip-unneeded "$bundle"/lib/*.so* "$bundle"/openmpi/components/*.so

cp -r configs "$bundle/"
cp "$here/run.sh" "$bundle/"
found=$(grep -rlF "$PWD" "$bundle" || true)
[ -z "$found" ] || fail "a path of this machine is in $found"
mkdir -p "$(dirname "$out")"
tar -C "$work" --owner=0 --group=0 -czf "$out" ziggurat_gpu
size=$(stat -c %s "$out")
echo "$out: $((size / 1024)) KiB, $(du -sk "$bundle" | cut -f 1) KiB unpacked; of there are taken $(tr '\n' ' ' <"$bundle/NEEDS")"
[ "$size" -lt $limit ] || fail "more than 64 MiB: leave architectures out (-DCMAKE_CUDA_ARCHITECTURES=90a-real)"
