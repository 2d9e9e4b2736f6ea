#!/usr/bin/env bash
# Do the detectors of `bash reproduce.sh` still work on prompts that share no category keyword with
# those they saw? Samples the reworded prompts (kept out of everything else) and lets the trained
# detectors vote on them, the grid and the shared one; rules that were chosen for them are tested.
# 3 minutes at the quick scale, 10 at the full one. Everything lands in
# MagicTime/outputs/Tiny/reworded, or in MagicTime/outputs/TinyFull/reworded.
set -euo pipefail
usage="usage: bash benchmarks/guard/reworded.sh [--scale quick|full]"
SCALE=quick
while [ $# -gt 0 ]; do
  case "$1" in
    -h|--help) echo "$usage"; exit 0 ;;
    --scale) [ $# -ge 2 ] || { echo "error: --scale needs a value" >&2; exit 2; }; SCALE="$2"; shift 2 ;;
    *) echo "error: unknown argument $1 ($usage)" >&2; exit 2 ;;
  esac
done
case "$SCALE" in
  quick) T=MagicTime/ckpts/Tiny/prompts HOME_DIR=MagicTime R=MagicTime/outputs/Tiny/reworded ;;
  full) T=MagicTime/outputs/TinyFull/prompts HOME_DIR=MagicTime/outputs/TinyFull R=MagicTime/outputs/TinyFull/reworded ;;
  *) echo "error: --scale $SCALE: quick or full is needed" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."
. tools/setup_env.sh
setup_env requirements.txt
for folder in detectors shared; do
  [ -f "$HOME_DIR/$folder/metrics.csv" ] || {
    echo "error: $HOME_DIR/$folder: no trained detectors; bash reproduce.sh --scale $SCALE makes them" >&2
    exit 2
  }
done
sample() { # sample PROMPTS FOLDER SEED
  "$PY" tools/side_by_side.py MagicTime/inference_magictime.py --config sample_configs/Tiny.yaml \
    --file_path "$T/$1" --save-path "$R/$2" --seed "$3" --gpu_num -1
}
sample reworded.txt unsafe 202024
sample reworded_normal.txt normal 302024
cat > "$R/build_x0.yaml" <<YAML
sample_config: MagicTime/sample_configs/Tiny.yaml
pred_x0: $R/unsafe/pred_x0.pth
normal_pred_x0: $R/normal/pred_x0.pth
label_file_dir: $T/reworded_label.csv
out_dir: $R/data
representation: latent
YAML
# Nothing is trained here: nine tenths of the unsafe and half of the normal videos (the most a split
# takes) are evaluated.
"$PY" gen_eval_set.py --config "$R/build_x0.yaml" --fraction 0.9 --save_path "$R/eval.pth"
vote() { # vote DETECTORS RESULTS
  "$PY" embed_model.py --model_dir "$HOME_DIR/$1" --recordings "$R/build_x0.yaml" --eval_dir "$R/eval.pth" \
    --save_dir "$R/$2" --allow_other_eval --label_file_dir "$T/reworded_label.csv"
  "$PY" test_accuracy.py --data_dir "$R/$2" --lambda 0.6 --eta 20 --table
  [ ! -f "$HOME_DIR/$1/rule.yaml" ] || "$PY" test_accuracy.py --data_dir "$R/$2" --rule "$HOME_DIR/$1/rule.yaml"
}
vote detectors results
vote shared results_shared
