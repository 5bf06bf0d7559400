#!/usr/bin/env bash
# Is an exported model the model? Trains every tiny model, and variants for every class of transformers, for a few
# steps; exports each, loads it in transformers and compares logits (fp32) and greedy text; imports the folder and
# exports it again, which must give the same bytes; upcycles a dense model and compares its logits with the dense
# ones. lm-evaluation-harness scores models of every class, exported and served, as `ziggurat eval` does;
# llama.cpp's converter makes GGUF of what that format expresses, with the same tensors. Prints tables; exit code 1 if
# anything differs.
#
#   scripts/parity/export.sh [--eval-data DIR] [--limit N] [FOLDER]
#
# Works in FOLDER (default: a temporary one), where what is finished stays; needs PyPI for .venv/parity. DIR holds
# lambada/lambada_test.jsonl and piqa/valid.jsonl, valid-labels.lst (default: made-up ones); N documents of each count.
set -euo pipefail
source_dir=$(realpath "$(dirname "$0")/../..")
ziggurat=${ZIGGURAT:-$source_dir/build/release/ziggurat}
python=${PARITY_PYTHON:-$source_dir/.venv/parity/bin/python}
eval_data='' limit=50 folder=''
while [ $# -gt 0 ]; do
  case $1 in
    --eval-data) eval_data=$(realpath "$2"); shift ;;
    --limit) limit=$2; shift ;;
    -*) echo "export.sh: unknown option '$1'; see the head of this file" >&2; exit 2 ;;
    *) folder=$1 ;;
  esac
  shift
done
folder=${folder:-$(mktemp -d)}
mkdir -p "$folder"
folder=$(realpath "$folder")

if [ ! -x "$python" ]; then
  python3 -m venv "$source_dir/.venv/parity"
  "$source_dir/.venv/parity/bin/pip" install --quiet -r "$source_dir/scripts/parity/requirements.txt"
fi

cd "$folder"
tiny=$source_dir/configs/tiny
tokens=$(seq -s, 3 7 255)
prompt="The parity of "
llama=(model.norm=rms_norm model.positions=rope model.activation=swiglu model.bias=false)
modern=$tiny/modern_moe.yaml
all_moe='model.blocks=[{repeat: 3, pattern: [{ffn: moe, experts: 4}]}]'

make_model() {  # NAME CONFIG [key=value ...]: a run, its logits and greedy text, its folder, and there and back again
  local name=$1 config=$2
  shift 2
  [ -e "$name/done" ] && return
  mkdir -p "$name"
  "$ziggurat" train "$config" output="$name/run" train.tokens=16K eval.every=0 model.vocab_size=257 \
    data.tokenizer=bytes "$@" >"$name/log" 2>&1
  describe "$name" "$name/run/checkpoints"
  "$ziggurat" export --checkpoint "$name/run/checkpoints" --output "$name/hf" --shard-size 200KB >>"$name/log" 2>&1
  "$ziggurat" import --from "$name/hf" --output "$name/imported" >>"$name/log" 2>&1
  "$ziggurat" export --checkpoint "$name/imported/checkpoints" --output "$name/hf_again" --shard-size 200KB \
    >>"$name/log" 2>&1
  touch "$name/done"
}

describe() {  # NAME CHECKPOINT: logits and greedy text
  "$ziggurat" logits --checkpoint "$2" --tokens "$tokens" --output "$1/logits.safetensors"
  "$ziggurat" generate --checkpoint "$2" --prompt "$prompt" --temperature 0 --tokens 20 >"$1/text" 2>>"$1/log"
}

upcycle() {  # NAME FROM OPTIONS: the model FROM with experts, which must compute the same
  [ -e "$1/done" ] && return
  mkdir -p "$1"
  "$ziggurat" import --from "$2/hf" --output "$1/run" --upcycle "$3" >"$1/log" 2>&1
  describe "$1" "$1/run/checkpoints"
  "$ziggurat" export --checkpoint "$1/run/checkpoints" --output "$1/hf" >>"$1/log" 2>&1
  touch "$1/done"
}

for config in "$tiny"/*.yaml; do make_model "$(basename "$config" .yaml)" "$config"; done
dense=$tiny/350m_dense.yaml
make_model gpt2_erf_untied "$dense" model.activation=gelu_erf model.tied_embeddings=false
make_model gpt2_no_biases "$dense" model.bias=false model.ffn_hidden=96
make_model llama "$dense" "${llama[@]}" model.kv_heads=2
make_model llama_biases_untied "$dense" "${llama[@]}" model.bias=true model.head_dim=16 model.tied_embeddings=false
make_model mixtral "$modern" "$all_moe" model.kv_heads=2
make_model mixtral_top1 "$modern" "$all_moe" model.moe.top_k=1 model.head_dim=12
make_model qwen2_moe_every_layer "$modern" "$all_moe" model.moe.renormalise=none model.moe.top_k=3
make_model qwen2_moe_top1 "$modern" model.moe.renormalise=none model.moe.top_k=1 model.tied_embeddings=false
make_model qwen2_moe_shared_interleaved "$tiny/qwen2_moe.yaml" model.moe.renormalise=chosen model.tied_embeddings=false \
  model.ffn_hidden=80 'model.blocks=[{repeat: 2, pattern: [{}, {ffn: residual_moe, experts: 4}]}]'
make_model qwen3 "$dense" "${llama[@]}" model.qk_norm=head model.head_dim=16 model.kv_heads=1
make_model qwen3_moe_interleaved "$modern" model.qk_norm=head model.moe.renormalise=none model.moe.top_k=1 \
  model.tied_embeddings=false model.moe.expert_hidden=24
make_model olmoe_renormalised "$tiny/olmoe.yaml" model.kv_heads=2 model.moe.renormalise=chosen model.moe.top_k=3
make_model dense_norm_width "$dense" model.qk_norm=width model.kv_heads=2
make_model pr_moe_norm_head "$tiny/pr_moe.yaml" "${llama[@]}" model.qk_norm=head
make_model pr_moe_sum "$tiny/pr_moe.yaml" model.moe.residual_mix=sum model.moe.top_k=2 model.moe.renormalise=survivors
make_model pr_moe_sigmoid "$tiny/pr_moe.yaml" model.moe.residual_mix=sigmoid model.moe.expert_hidden=24 \
  model.moe.residual_hidden=72
make_model pr_moe_modern "$tiny/pr_moe.yaml" "${llama[@]}" model.kv_heads=2 model.moe.coefficient_bias=false \
  model.rope_theta=500 model.head_dim=10 model.tied_embeddings=false
make_model moe_erf "$tiny/125m_moe64.yaml" model.activation=gelu_erf model.moe.top_k=3
make_model dense_rms_learned "$dense" model.norm=rms_norm
upcycle upcycled 350m_dense experts=4,every=2
upcycle upcycled_top1 llama experts=4,every=1,top_k=1
upcycle upcycled_qwen3 qwen3 experts=4,every=2
upcycle upcycled_residual llama_biases_untied experts=3,every=3,residual=true

# Models that know the texts a little, for evaluations: the right word is often the likeliest.
if [ -z "$eval_data" ]; then
  eval_data=$folder/evaluation_set
  "$python" "$source_dir/scripts/parity/make_evaluation_set.py" "$eval_data"
fi
[ -e judged.tok ] || "$ziggurat" data train-tokenizer --input "$eval_data/lambada/lambada_test.jsonl" --document-per json \
  --key text --vocab-size 350 --output judged.tok >judged.log 2>&1
[ -e evaluated_texts ] || "$ziggurat" data tokenize --input "$eval_data/lambada/lambada_test.jsonl" --document-per json \
  --key text --tokenizer judged.tok --output evaluated_texts --split 1,0,0 >>judged.log 2>&1
evaluations=lambada:512,piqa:512,lambada:24  # task:tokens that the model sees; the last cuts contexts
make_judged() {  # NAME CONFIG [key=value ...]: a model, and what `ziggurat eval` says of it
  make_model "$@" model.vocab_size=350 model.max_sequence=512 batch.sequence_length=128 batch.global_batch=16 \
    train.tokens=200K data.tokenizer=judged.tok data.train=evaluated_texts
  for evaluation in ${evaluations//,/ }; do
    local task=${evaluation%:*} length=${evaluation#*:}
    "$ziggurat" eval --checkpoint "$1/run/checkpoints" --tasks "$task" --data "$eval_data" --any-size --limit "$limit" \
      --max-length "$length" --output "$1/${task}_$length.json" --scores "$1/${task}_$length.jsonl" >>"$1/log" 2>&1
  done
}
make_judged judged_gpt2 "$dense"
make_judged judged_llama "$dense" "${llama[@]}" model.kv_heads=2
make_judged judged_mixtral "$modern" "$all_moe" model.kv_heads=2
make_judged judged_qwen2_moe "$modern" "$all_moe" model.moe.renormalise=none
make_judged judged_qwen3 "$dense" "${llama[@]}" model.kv_heads=2 model.qk_norm=head
make_judged judged_qwen3_moe "$tiny/qwen3_moe.yaml"
make_judged judged_olmoe "$tiny/olmoe.yaml"
make_judged judged_moe "$tiny/125m_moe64.yaml"
make_judged judged_pr_moe "$tiny/pr_moe.yaml"

# Tokenizers: ids of a text, by Ziggurat in shards and by the exported folder.
make_tokenizer() {  # NAME TOKENIZER
  [ -e "$1/done" ] && return
  mkdir -p "$1"
  "$ziggurat" data tokenize --input "$source_dir/README.md" --tokenizer "$2" --output "$1/data" --split 1,0,0 \
    >"$1/log" 2>&1
  "$ziggurat" train "$dense" output="$1/run" train.tokens=2K model.vocab_size=1000 data.tokenizer="$2" \
    >>"$1/log" 2>&1
  "$ziggurat" export --checkpoint "$1/run/checkpoints" --output "$1/hf" >>"$1/log" 2>&1
  touch "$1/done"
}
[ -e bpe.tok ] || "$ziggurat" data train-tokenizer --input "$source_dir/src" --vocab-size 700 --output bpe.tok >bpe.log 2>&1
make_tokenizer tokenizer_bytes bytes
make_tokenizer tokenizer_bpe bpe.tok
for kind in bpe unigram; do
  [ -e $kind.model ] || "$python" -c "import sentencepiece as s; s.SentencePieceTrainer.train(input='$source_dir/README.md', \
    model_prefix='$kind', model_type='$kind', vocab_size=500, hard_vocab_limit=False, byte_fallback=True, minloglevel=2)"
  make_tokenizer tokenizer_sentencepiece_$kind $kind.model
done
# llama.cpp's converter comes with the source of llama-cpp-python, which need not be built.
if [ ! -e llama.cpp/convert_hf_to_gguf.py ]; then
  "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36
  mkdir -p llama.cpp
  tar -xzf llama_cpp_python-*.tar.gz -C llama.cpp --strip-components=3 --wildcards \
    '*/vendor/llama.cpp/conversion' '*/vendor/llama.cpp/gguf-py' '*/vendor/llama.cpp/convert_hf_to_gguf.py'
fi
"$python" "$source_dir/scripts/parity/compare_exports.py" "$prompt" "$source_dir/README.md" "$ziggurat" "$eval_data" \
  "$limit" "$evaluations"
