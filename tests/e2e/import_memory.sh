#!/usr/bin/env bash
# A model several times larger than the memory that is allowed comes and goes: what import and export hold does not
# grow with it. Addresses count too, as under `ulimit -v` or h_vmem.
source "$(dirname "$0")/common.sh"
large_folder=$source_dir/tests/e2e/large_folder.py

there_and_back() {  # NAME: prints the peaks of import and export
  peak_of "$ziggurat" import --from "$1" --output "$1_run" 2>>log
  peak_of "$ziggurat" export --checkpoint "$1_run" --output "$1_back" 2>>log
}

python3 "$large_folder" write small
python3 "$large_folder" write large hidden=1024 ffn=2048 experts=8 vocab=1024  # 57M parameters
weights=$((2 * $(stat -c %s large/model.safetensors)))                           # in f32
small=($(there_and_back small)) || { cat log; fail "a small model"; }
large=($(there_and_back large)) || { cat log; fail "a large model"; }
python3 "$large_folder" compare large large_back || fail "there and back again differs"

# 48 MiB are less than one layer's stack of experts, and a quarter of the weights.
allowed=$((48 << 20))
[ "$weights" -ge $((4 * allowed)) ] || fail "a model too small to tell: $weights bytes"
for i in 0 1; do
  more=$((large[i] - small[i]))
  echo "peak ${large[i]} bytes, of a small model ${small[i]}: $more more for $weights bytes of weights"
  [ $more -le $allowed ] || fail "expected at most $allowed bytes more"
done

# The checkpoint has 12 bytes a parameter.
few_addresses() { (ulimit -v 500000; "$@"); }
[ "$(stat -c %s large_run/checkpoints/*/rank_00000.safetensors)" -gt 512000000 ] || fail "a checkpoint too small to tell"
rm -r large_run large_back
expect_end 0 log few_addresses "$ziggurat" import --from large --output large_again
expect_end 0 log few_addresses "$ziggurat" export --checkpoint large_again --output large_back
python3 "$large_folder" compare large large_back || fail "there and back again under few addresses differs"
