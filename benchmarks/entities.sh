#!/usr/bin/env bash
# Entities in financial news (FiNER-ORD) from a checkpoint with and without a stage one, three seeds each, with all labels and a
# tenth of them; then, from the checkpoint alone, what all word pieces labelled, context and plain argmax do.
#
#     REAL_DATA_DIR=… CHECKPOINT=… STAGE_ONE=outputs/news bash benchmarks/entities.sh
set -euo pipefail
cd "$(dirname "$0")/.."

# entities NAME CHECKPOINT MORE…
entities() {
  local data=$REAL_DATA_DIR/ner/finer_ord name=$1 from=$2
  shift 2
  python run_ner.py --checkpoint "$from" --train_file "$data/train.conll" --validation_file "$data/validation.conll" \
    --test_file "$data/test.conll" --allow_leakage --seeds 0 1 2 --num_train_epochs 4 --learning_rate 1e-4 \
    --head_learning_rate 1e-3 --calibrate --label_pieces first --eval_strategy no --save_strategy no \
    --output_dir "outputs/benchmarks/entities-$name" "$@"
}

entities without "$CHECKPOINT"
entities with "$STAGE_ONE"
entities few-without "$CHECKPOINT" --max_train_samples 326 --num_train_epochs 10
entities few-with "$STAGE_ONE" --max_train_samples 326 --num_train_epochs 10
entities all-pieces "$CHECKPOINT" --label_pieces all
entities context "$CHECKPOINT" --context 32
for seed in 0 1 2; do # the models of `without`, each word's likeliest tag instead of the likeliest legal sequence
  python run_ner.py --checkpoint "outputs/benchmarks/entities-without/seed-$seed" --decoding argmax \
    --test_file "$REAL_DATA_DIR/ner/finer_ord/test.conll" --output_dir "outputs/benchmarks/entities-argmax/seed-$seed"
done
