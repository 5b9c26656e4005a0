#!/usr/bin/env bash
# Sentiment from a checkpoint with and without a stage one, over seeds: PhraseBank (3 labels, a tenth of the texts, and all)
# and SemEval headlines (7 ordered shades), the latter with cross-entropy and with the ordinal loss.
#
#     REAL_DATA_DIR=… CHECKPOINT=… STAGE_ONE=outputs/news bash benchmarks/sentiment.sh
set -euo pipefail
cd "$(dirname "$0")/.."
SHADES=("strongly pessimistic" pessimistic "mildly pessimistic" neutral "cautiously optimistic" optimistic
  "strongly optimistic")

# sentiment NAME FOLDER MORE…: trains on FOLDER's train.csv, from the checkpoint and from stage one's
sentiment() {
  local name=$1 folder=$REAL_DATA_DIR/sentiment/$2
  shift 2
  for arm in without with; do
    from=$CHECKPOINT
    if [ "$arm" = with ]; then from=$STAGE_ONE; fi
    python run_sentiment.py --checkpoint "$from" --train_file "$folder/train.csv" \
      --validation_file "$folder/validation.csv" --test_file "$folder/test.csv" --learning_rate 5e-5 --calibrate \
      --eval_strategy no --save_strategy no --output_dir "outputs/benchmarks/$name-$arm" "$@"
  done
}

sentiment phrasebank financial_phrasebank_50agree --labels negative neutral positive --seeds 0 1 2 \
  --max_train_samples 386 --num_train_epochs 10 --head_learning_rate 1e-4
sentiment phrasebank-all financial_phrasebank_50agree --labels negative neutral positive --seeds 0 1 2 \
  --num_train_epochs 4 --head_learning_rate 1e-4
for loss in cross_entropy ordinal; do
  sentiment "headlines-$loss" semeval2017_headlines_7class --labels "${SHADES[@]}" --seeds 0 1 2 3 4 \
    --num_train_epochs 6 --head_learning_rate 1e-3 --loss $loss
done
