#!/usr/bin/env bash
# Mixture-of-Students as a user runs it: a teacher, then a staged student in one run on 1, 2 and 4 ranks with the same
# losses; killed in either phase it goes on to the same bits; what does not fit is refused with the cure; the student is
# exported as any other model.
source "$(dirname "$0")/common.sh"
tiny=$source_dir/configs/tiny
common=(train.tokens=40960 optimizer.decay_tokens=40960 optimizer.warmup_tokens=2K eval.sequences=16 eval.every=10 log.every=1 log.exact=true)

train() { # OUTPUT RANKS [key=value ...]
  local output=$1 ranks=$2
  shift 2
  mpirun -n "$ranks" --oversubscribe "$ziggurat" train "$tiny/350m_mos.yaml" output="$output" "${common[@]}" \
    distil.teacher=teacher distil.weight.until=20480 "$@" >"$output.log" 2>&1
}
same() { # A B: the losses of steps and validations
  for kind in step validation; do
    diff <(losses "$1/metrics.jsonl" $kind) <(losses "$2/metrics.jsonl" $kind) || fail "$1 and $2 differ"
  done
}

# A plan before there is a teacher: its config is enough.
expect_end 0 log "$ziggurat" plan "$tiny/350m_mos.yaml" distil.teacher=teacher distil.teacher_config="$tiny/350m_pr_moe.yaml"
expect_text log "teacher"
expect_end 0 log "$ziggurat" plan "$tiny/350m_mos.yaml" distil.teacher=teacher distil.teacher_config='""'
expect_text log "note: distil.teacher: teacher is not on this machine"
expect_end 3 log "$ziggurat" train "$tiny/350m_mos.yaml" output=none distil.teacher=teacher "${common[@]}"
expect_text log "teacher"
[ ! -e none/metrics.jsonl ] || fail "a run began without its teacher"

expect_end 0 log mpirun -n 2 "$ziggurat" train "$tiny/350m_pr_moe.yaml" output=teacher "${common[@]}" train.tokens=81920

# The same bits on any number of ranks, with the teacher's experts on as many.
strict=(reproducible=strict "model.dropout={embedding: 0.1, attention: 0.1, hidden: 0.1}")
for ranks in 1 2 4; do
  train strict$ranks $ranks "${strict[@]}" || { cat strict$ranks.log; fail "training on $ranks ranks"; }
  [ "$(losses strict$ranks/metrics.jsonl step | wc -l)" = 20 ] || fail "expected 20 steps"
done
same strict1 strict2
same strict1 strict4
python3 - <<'PYTHON' || fail "the stages are not what the config says"
import json
steps = [json.loads(line) for line in open("strict2/metrics.jsonl")]
steps = [r for r in steps if r["kind"] == "step"]
for r in steps:
    taught = r["tokens"] <= 20480
    assert (r["losses"]["distillation"] > 0) == taught, r
    assert r["objective"]["distillation_weight"] == (1 if taught else 0), r
    assert set(r["losses"]) == {"cross_entropy", "distillation", "balance", "router_z"}, r
    assert r["losses"]["cross_entropy"] == r["loss"], r
# The teacher is counted while it works.
flops = [r["flops_per_second"] / r["tokens_per_second"] for r in steps]
assert max(flops[:10]) - min(flops[:10]) < 1e-3 * flops[0] and flops[9] > 1.2 * flops[10], flops
PYTHON

# A checkpoint holds the student alone and names the teacher.
newest=$(echo strict1/checkpoints/step_*)
expect_end 0 log "$ziggurat" checkpoint inspect "$newest"
grep -q '"teacher": *"xxh3-128:' "$newest/manifest.json" || fail "the checkpoint does not name the teacher"
python3 - "$newest/manifest.json" teacher/checkpoints/step_*/manifest.json <<'PYTHON' || fail "the checkpoint holds more than the student"
import json, sys
def names(path): return {s["name"] for f in json.load(open(path))["files"] for s in f.get("slices", f.get("tensors", []))}
student, teacher = map(names, sys.argv[1:])
assert student and not any("blocks.5." in name for name in student) and any("blocks.5." in name for name in teacher)
PYTHON

# Killed in either phase, and gone on from the checkpoint before: the same bits as without.
train whole 2 || { cat whole.log; fail "training"; }
for step in 7 15; do
  killed=(killed$step 2 checkpoint.every=4 checkpoint.resume=auto)
  ! ZIGGURAT_INJECT=step:kill:rank=1:step=$step train "${killed[@]}" || fail "the run was not killed in step $step"
  train "${killed[@]}" || { cat killed$step.log; fail "the run does not go on after step $step"; }
  expect_text killed$step.log "resumed at step $((step / 4 * 4))"
  same whole killed$step
done

# Another teacher is refused while it is needed, and no matter when it is not.
expect_end 0 log "$ziggurat" train "$tiny/350m_pr_moe.yaml" output=other "${common[@]}" seed=7
train stopped 1 checkpoint.every=4 checkpoint.resume=auto train.tokens=10240 || fail "training"
expect_end 2 log train stopped 1 checkpoint.resume=auto distil.teacher=other
expect_text stopped.log "distil.teacher" "hash" "name the same teacher"
expect_end 0 log train whole 1 checkpoint.resume=auto train.tokens=43008 distil.teacher=other

# What does not fit.
expect_end 0 log "$ziggurat" train "$tiny/350m_pr_moe.yaml" output=foreign "${common[@]}" model.vocab_size=90
expect_end 2 log train misfit 1 distil.teacher=foreign
expect_text misfit.log "distil.teacher" "vocabulary of 90"
for look in "config check" plan; do  # the same before anything is started, from what is on this machine
  expect_end 2 log "$ziggurat" $look "$tiny/350m_mos.yaml" distil.teacher=foreign
  expect_text log "distil.teacher" "vocabulary of 90"
  expect_end 2 log "$ziggurat" $look "$tiny/350m_mos.yaml" distil.teacher=teacher distil.init_layers=[0,1,2,3,5]
  expect_text log "distil.init_layers" "same kind"
done
printf 'include: %s\nmodel: {vocab_size: 90}\n' "$tiny/350m_pr_moe.yaml" >foreign.yaml
expect_end 2 log "$ziggurat" plan "$tiny/350m_mos.yaml" distil.teacher=not_yet distil.teacher_config=foreign.yaml
expect_text log "foreign.yaml has a vocabulary of 90"
expect_end 0 log "$ziggurat" config check "$tiny/350m_mos.yaml" distil.teacher=teacher
expect_end 0 log "$ziggurat" config check "$tiny/350m_mos.yaml" distil.teacher=not_yet distil.teacher_config='""'
expect_text log "note: distil.teacher: not_yet is not on this machine"
expect_end 2 log train misfit 1 distil.init_layers=[0,1,4,5,2] model.max_sequence=128
expect_text misfit.log "embed.position.weight" "set model.max_sequence=64"
expect_end 2 log train misfit 1 distil.init_layers=[0,1,4,5,2] model.hidden=64
expect_text misfit.log "as wide as its teacher: set model.hidden="
expect_end 2 log train misfit 1 distil.init_layers=[0,1,2,3]
expect_text misfit.log "distil.init_layers" "each of the student's 5"
expect_end 2 log train misfit 1 distil.init_layers=[0,1,2,3,5]
expect_text misfit.log "distil.init_layers" "same kind"
[ ! -e misfit/metrics.jsonl ] || fail "a run began with what does not fit"

# A student that begins as its teacher's layers, with another precision, and a weight that falls.
train begun 2 distil.init_layers=[0,1,4,5,2] distil.precision=bf16 distil.temperature=2 distil.weight.then=cosine
expect_text begun.log "the student starts as layers 0, 1, 4, 5, 2"

expect_end 0 log "$ziggurat" export --checkpoint whole --output exported
[ -e exported/model.safetensors ] || { ls exported; fail "no exported student"; }
echo "distil: ok"
