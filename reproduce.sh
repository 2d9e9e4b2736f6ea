#!/usr/bin/env bash
# The whole path: prompts -> videos and predicted x0 -> datasets -> detectors -> votes -> accuracy by (lambda, eta),
# and for one shared detector: a rule, chosen by what it costs.
# Run it again after a stop and it goes on where it was.
set -euo pipefail
usage() {
  cat <<'TXT'
usage: bash reproduce.sh [--scale quick|full] [--config build_x0.yaml] [--prompts FILE --normal_prompts FILE]
                         [--train_config train_mae.yaml] [--model grid|shared|both] [--gpu_num N] [--processes N] [--plan]

  no arguments      the tiny world that comes with the repository, on a CPU: about 15 minutes on two idle cores
  --scale full      four times as many prompts of the tiny world (MagicTime/sample_configs/build_x0_full.yaml), and a rule
                    for the 250 detectors, too; about an hour
  --config FILE     another model: a file like build_x0.yaml; needs --prompts and --normal_prompts; its detectors are
                    trained by --train_config (default: train_mae.yaml, whose size suits the tiny world)
  --model WHICH     shared: one detector for all categories and steps, and a rule, which is what we recommend; grid: one
                    for each category and step, as in the paper; both (default). shared alone needs no clips on the disk
  --processes N     on a CPU, sample by N processes of one thread each, with the same results (default: auto, one for each
                    core; with --config, whose model may be large, a single process of many threads)
  --plan            say what every step will take in disk, memory and hours, and what is there already; then stop

Prompts, labels, weights, folders and the disk are checked before the first video (python plan.py --check). Where labels
were corrected or prompts were added, the same command goes on: nothing is sampled again, and what was made from the
older labels is moved to earlier/ and made anew. docs/your_prompts.md is the way for prompts of your own.

Everything lands beside the config's out_dir: report.html is the page to open first; each step's seconds and peak memory
are in steps.csv.
TXT
}
fail() {
  echo "error: $1" >&2
  exit 2
}
CONFIG=build_x0.yaml SCALE="" OWN="" PROMPTS="" NORMAL="" TRAIN=train_mae.yaml GPU=0 PROCESSES="" MODEL=both PLAN=""
NORMAL_SEED="--seed 102024" # no normal video shares its first noise with an unsafe one
while [ $# -gt 0 ]; do
  case "$1" in
    -h|--help) usage; exit 0 ;;
    --plan) PLAN=1; shift; continue ;;
    --scale|--config|--prompts|--normal_prompts|--train_config|--model|--gpu_num|--processes)
      [ $# -ge 2 ] || fail "$1 needs a value" ;;&
    --scale) SCALE="$2" ;;
    --config) CONFIG="$(realpath -m "$2")"; OWN=1 ;;
    --prompts) PROMPTS="$(realpath -m "$2")" ;;
    --normal_prompts) NORMAL="$(realpath -m "$2")" ;;
    --train_config) TRAIN="$(realpath -m "$2")" ;;
    --model) MODEL="$2" ;;
    --gpu_num) GPU="$2" ;;
    --processes) PROCESSES="$2" ;;
    *) fail "unknown argument $1 (see bash reproduce.sh --help)" ;;
  esac
  shift 2
done
if [ -n "$OWN" ]; then
  [ -z "$SCALE" ] || fail "--scale is for the tiny world, it does not go with --config"
  SCALE=own NORMAL_SEED=""
elif [ -n "$PROMPTS$NORMAL" ]; then
  fail "--prompts and --normal_prompts go with --config (the label file belongs to the prompts)"
fi
[[ "$GPU" =~ ^(-1|[0-9]+)$ ]] || fail "--gpu_num $GPU: a CUDA device from 0, or -1 for the CPU, is needed"
[[ "$PROCESSES" =~ ^(auto|[1-9][0-9]{0,3})?$ ]] || fail "--processes $PROCESSES: auto or a number is needed"
case "$MODEL" in grid|shared|both) ;; *) fail "--model $MODEL: grid, shared or both is needed" ;; esac
need_prompts() { # need_prompts FLAG FILE
  [ -n "$2" ] || fail "--config needs --prompts and --normal_prompts; $1 is missing"
  case "$2" in *.csv|*.tsv|*.json|*.xlsx|*.docx|*.yaml)
    fail "$1 $2: a text file with one prompt a line is needed, whose name does not end so" ;;
  esac
  [ -f "$2" ] || fail "$1 $2: no such file; one prompt a line is needed"
}
if [ -n "$OWN" ]; then # before anything is installed
  need_prompts --prompts "$PROMPTS"
  need_prompts --normal_prompts "$NORMAL"
  [ -f "$CONFIG" ] || fail "--config $CONFIG: no such file; copy build_x0.yaml and change it"
fi
SCALE="${SCALE:-quick}"
case "$SCALE" in quick|full|own) ;; *) fail "--scale $SCALE: quick or full is needed" ;; esac
cd "$(dirname "$0")"

outline() { # what will happen; minutes on two idle cores
  if [ "$SCALE" = own ]; then
    echo "Samples $PROMPTS and $NORMAL, trains detectors on the predicted x0 of their videos, and reports."
  else
    cat <<'TXT'
The whole method on the tiny world, on two idle cores (--scale full: four times as many videos and minutes):
   2-5 min   install the pinned requirements into .venv (the first time only)
     3 min   sample 200 unsafe videos (harmless stand-ins) and record the predicted x0 of all 50 steps
     3 min   sample 200 normal videos in the same way
TXT
    [ "$MODEL" = shared ] || echo "    10 s     build the data set of clips"
    echo "     1 s     hold videos out for the evaluation"
    [ "$MODEL" = shared ] || cat <<'TXT'
     2 min   train 250 detectors, one for each of 5 categories and 50 steps
    30 s     let them vote on the held-out videos; accuracy by (lambda, eta), tables and figures
TXT
    [ "$MODEL" = grid ] || cat <<'TXT'
     6 min   train one shared detector for all of them, and five more that leave out a fifth of the videos each
    30 s     choose a rule on those fifths: when to stop a video; what it does to the held-out videos
TXT
    echo "     5 s     write report.html: look at each video, its scores, and what rules do"
  fi
  echo "Stop it with Ctrl-C whenever you like: the same command goes on where it was."
}
[ -n "$PLAN" ] || outline
. tools/setup_env.sh
setup_env requirements.txt

TINY=MagicTime/ckpts/Tiny/prompts
case "$SCALE" in
  quick) PROMPTS="${PROMPTS:-$TINY/unsafe.txt}" NORMAL="${NORMAL:-$TINY/normal.txt}" ;;
  full) CONFIG=MagicTime/sample_configs/build_x0_full.yaml PROMPTS=MagicTime/outputs/TinyFull/prompts/unsafe.txt
        NORMAL=MagicTime/outputs/TinyFull/prompts/normal.txt
        "$PY" MagicTime/prepare_weights/tiny/make_prompts.py --scale full --out MagicTime/outputs/TinyFull/prompts ;;
esac
settings="$("$PY" -m lvd.data.config "$CONFIG")"
eval "$settings" # SAMPLE_CONFIG UNSAFE_DIR NORMAL_DIR LABELS DATA_DIR HOME_DIR

INPUTS=(--config "$CONFIG" --prompts "$PROMPTS" --normal_prompts "$NORMAL" --train_config "$TRAIN")
if [ -n "$PLAN" ]; then
  [ "$SCALE" != full ] || [ "$MODEL" = shared ] || INPUTS+=(--folds)
  "$PY" plan.py "${INPUTS[@]}" --model "$MODEL" --gpu_num "$GPU"
  exit
fi
echo; echo "== what there is, before the first video"
"$PY" plan.py "${INPUTS[@]}" --model "$MODEL" --check
able="$("$PY" -m lvd_plan.own_data "${INPUTS[@]}" --shell)"
eval "$able" # FOLDS: 5, or 0 where there are too few videos; NAMES: --names, or nothing for a single category

GRID=1 SHARED=1
[ "$MODEL" != shared ] || GRID=0
[ "$MODEL" != grid ] || SHARED=0
RULE=$((FOLDS > 0 ? 2 : 1)) # steps: choose a rule, test it; or test the paper's alone
STEP=0 STEPS=$((3 + GRID * 5 + SHARED * (2 + RULE)))
[ "$SCALE" != full ] || STEPS=$((STEPS + GRID * (1 + RULE)))
step() { # step NAME COMMAND...: run it, log its seconds and peak memory
  STEP=$((STEP + 1))
  echo; echo "== $STEP of $STEPS: $1"
  "$PY" benchmarks/common/measure.py --log "$HOME_DIR/steps.csv" --name "$1" -- "$PY" "${@:2}"
}
LIMITS=() # of choose_rule.py: its own. 157 normal videos are too few to promise 5% at a cost that is worth it.
[ "$SCALE" = quick ] && LIMITS=(--max_false_positive_rate 0.1 --max_cost 0.2)
test_without_rule() { # the same words
  step "test, $1" test_accuracy.py --data_dir "$HOME_DIR/$2" --lambda 0.6 "${@:3}"
}
choose_and_test() { # choose_and_test DETECTORS RESULTS FLAG...: a rule by the scores of the folds, tested on held-out videos
  local status=0
  [ "$FOLDS" != 0 ] || { test_without_rule "$@"; return; }
  step "choose rule, $1" choose_rule.py --scores "$HOME_DIR/$1/folds.pth" --model_dir "$HOME_DIR/$1" \
    ${LIMITS[@]+"${LIMITS[@]}"} || status=$?
  if [ $status = 2 ]; then # with too few videos nothing can be promised; all else goes on
    echo "No rule for $1: the line above says why. docs/rules.md has more."
    test_without_rule "$@"
    return
  fi
  [ $status = 0 ] || exit $status
  step "test rule, $1" test_accuracy.py --data_dir "$HOME_DIR/$2" --rule "$HOME_DIR/$1/rule.yaml" \
    --frontier "$HOME_DIR/$1/folds.pth" "${@:3}"
}
grid_clips() { # the grid is trained on clips, and votes on them
  [ $GRID = 0 ] || step "$@"
}
WITH_FOLDS=()
[ "$FOLDS" = 0 ] || WITH_FOLDS=(--folds "$FOLDS")
SAMPLER=(MagicTime/inference_magictime.py)
if [ "$GPU" != -1 ] && "$PY" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  [ -z "$PROCESSES" ] || fail "--processes $PROCESSES: is for the CPU, give --gpu_num -1 as well"
else
  GPU=-1
  # One process of many threads is slower than many of one: the threads wait for each other.
  if [ "$SCALE" != own ] || [ -n "$PROCESSES" ]; then
    SAMPLER=(tools/side_by_side.py --processes "${PROCESSES:-auto}" "${SAMPLER[@]}")
  fi
fi

step "sample unsafe" "${SAMPLER[@]}" --config "$SAMPLE_CONFIG" --file_path "$PROMPTS" \
  --save-path "$UNSAFE_DIR" --gpu_num "$GPU" --filmstrips 8
step "sample normal" "${SAMPLER[@]}" --config "$SAMPLE_CONFIG" --file_path "$NORMAL" \
  --save-path "$NORMAL_DIR" --gpu_num "$GPU" --filmstrips 4 $NORMAL_SEED

grid_clips "build_x0" build_x0.py --config "$CONFIG" --label_file_dir "$LABELS" --gpu_num "$GPU"
"$PY" -m lvd_plan.earlier --config "$CONFIG" # what older labels or recordings made
step "gen_eval_set" gen_eval_set.py --config "$CONFIG" --save_path "$HOME_DIR/eval.pth"
grid_clips "build_eval_set" build_eval_set.py --config "$CONFIG" --eval_dir "$HOME_DIR/eval.pth" --save_dir "$HOME_DIR"

if [ $GRID = 1 ]; then
  step "train_mae" train_mae.py --config "$TRAIN" --data_dir "$DATA_DIR" --eval_dir "$HOME_DIR/eval.pth" --group_num all \
    --step_num all --train --gpu_num "$GPU" --save_dir "$HOME_DIR/detectors" $NAMES
  step "embed_model" embed_model.py --config "$TRAIN" --model_dir "$HOME_DIR/detectors" --eval_dir "$HOME_DIR/eval.pth" \
    --data_dir "$HOME_DIR" --save_dir "$HOME_DIR/results" --label_file_dir "$LABELS" --gpu_num "$GPU"
  step "test_accuracy" test_accuracy.py --data_dir "$HOME_DIR/results" --lambda 0.6 --table --metrics
  if [ "$SCALE" = full ]; then # five times the training: too long for a first look
    step "folds" train_mae.py --config "$TRAIN" --data_dir "$DATA_DIR" --eval_dir "$HOME_DIR/eval.pth" --group_num all \
      --step_num all --train --gpu_num "$GPU" --save_dir "$HOME_DIR/detectors" --folds "$FOLDS"
    choose_and_test detectors results
  fi
fi

if [ $SHARED = 1 ]; then
  step "train shared" train_mae.py --config "$TRAIN" --model shared --recordings "$CONFIG" --eval_dir "$HOME_DIR/eval.pth" \
    --gpu_num "$GPU" --save_dir "$HOME_DIR/shared" ${WITH_FOLDS[@]+"${WITH_FOLDS[@]}"} $NAMES
  step "embed shared" embed_model.py --config "$TRAIN" --model_dir "$HOME_DIR/shared" --recordings "$CONFIG" \
    --eval_dir "$HOME_DIR/eval.pth" --save_dir "$HOME_DIR/results_shared" --gpu_num "$GPU"
  choose_and_test shared results_shared --table
fi

echo; echo "== done"
"$PY" tools/closing_report.py --home_dir "$HOME_DIR" --recordings "$CONFIG" --filmstrips "$UNSAFE_DIR/filmstrips" \
  --steps_csv "$HOME_DIR/steps.csv"
