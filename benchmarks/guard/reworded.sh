#!/usr/bin/env bash
# Do the detectors of `bash reproduce.sh` still work on prompts that share no category keyword with
# those they saw? Samples the reworded prompts (kept out of everything else) and lets the trained
# detectors vote on them. 5 minutes; everything lands in MagicTime/outputs/Tiny/reworded.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/setup_env.sh
setup_env requirements.txt
T=MagicTime/ckpts/Tiny/prompts R=MagicTime/outputs/Tiny/reworded
[ -f MagicTime/detectors/metrics.csv ] || {
  echo "error: MagicTime/detectors: no such folder; bash reproduce.sh makes it (15 minutes)" >&2
  exit 2
}
sample() { # sample PROMPTS FOLDER SEED
  "$PY" MagicTime/inference_magictime.py --config sample_configs/Tiny.yaml \
    --file_path "$T/$1" --save-path "$R/$2" --seed "$3"
}
sample reworded.txt unsafe 202024
sample reworded_normal.txt normal 302024
FROM=(--pred_x0 $R/unsafe/pred_x0.pth --normal_pred_x0 $R/normal/pred_x0.pth
  --label_file_dir $T/reworded_label.csv --out_dir $R/data)
"$PY" build_x0.py "${FROM[@]}"
# Nothing is trained here: nine tenths of the unsafe and half of the normal videos (the most a split
# takes) are evaluated.
"$PY" gen_eval_set.py "${FROM[@]}" --fraction 0.9 --save_path $R/eval.pth
"$PY" build_eval_set.py --data_dir $R/data --eval_dir $R/eval.pth --save_dir $R
"$PY" embed_model.py --model_dir MagicTime/detectors --eval_dir $R/eval.pth --data_dir $R \
  --save_dir $R/results --allow_other_eval --label_file_dir $T/reworded_label.csv
"$PY" test_accuracy.py --data_dir $R/results --lambda 0.6 --eta 20 --table
