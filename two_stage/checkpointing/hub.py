"""The Hub: a finished folder is uploaded once, at its end: what loads the model and tells of it, and nothing else.

Trainer of itself uploads at every save whatever lies in the folder, pickled arguments and predicted texts among it,
and puts a card of its own over the run's.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from two_stage.command_line.exits import Failure, Refusal, say
from two_stage.command_line.redaction import redacted

if TYPE_CHECKING:
    from two_stage.training.training_arguments import ExactTrainingArguments

# Of the folder's files those that go up: no texts of the user's (predictions), no checkpoints, no trackers' files
UPLOADED = re.compile(
    r"README\.md|config\.json|model\.safetensors|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|"
    r"added_tokens\.json|vocab\.txt|recipe\.yaml|lineage\.json|all_results\.json|trainer_state\.json|"
    r"label_scores\.json|before\.json|[\w-]+\.png|onnx/[\w-]+\.(onnx|json|txt)"
)
UPLOADS_MORE = ("checkpoint", "all_checkpoints")  # values of --hub_strategy


def check_hub(training: "ExactTrainingArguments") -> None:
    """Refuse --push_to_hub where it cannot work, as far as can be told without a connection.

    Raises:
        Refusal: offline, no token, or a strategy that uploads optimizers.
    """
    from huggingface_hub import constants, get_token

    if getattr(training.hub_strategy, "value", training.hub_strategy) in UPLOADS_MORE:
        raise Refusal("--hub_strategy: checkpoints hold pickles and are not uploaded; leave it out: the model is")
    if constants.HF_HUB_OFFLINE:
        raise Refusal("--push_to_hub: HF_HUB_OFFLINE rules the Hub out; unset it, or leave --push_to_hub out")
    if not (training.hub_token or get_token()):
        raise Refusal("--push_to_hub: there is no token to write with; run `hf auth login`, or set HF_TOKEN")


def open_repository(training: "ExactTrainingArguments") -> str:
    """Make the repository of --hub_model_id, else one named as the folder, if it is not there; returns its id.

    Raises:
        Refusal: the Hub does not answer, or does not let this token.
    """
    from huggingface_hub import HfApi

    name = training.hub_model_id or Path(training.output_dir).resolve().name
    try:
        made = HfApi().create_repo(name, token=training.hub_token, private=training.hub_private_repo, exist_ok=True)
        return made.repo_id
    except Exception as error:  # of a dozen kinds, and all are about the Hub, the name or the token
        raise Refusal(f"--push_to_hub {name}: the Hub says: {_told(error)}; mend that, or leave it out") from error


def files_to_upload(folder: Path) -> list[str]:
    """The files of a run that go up, by their paths in it."""
    there = [path for pattern in ("*", "onnx/*") for path in folder.glob(pattern) if path.is_file()]
    names = sorted(path.relative_to(folder).as_posix() for path in there)
    return [name for name in names if UPLOADED.fullmatch(name)]


def uploaded_content(folder: Path, name: str, repository: str) -> str | bytes:
    """A file's path; of the card its text, whose usage loads the model from where it will lie."""
    if name != "README.md":
        return str(folder / name)
    text = (folder / name).read_text(encoding="utf-8")
    return text.replace(json.dumps(str(folder), ensure_ascii=False), json.dumps(repository)).encode()


def upload_run(folder: Path, training: "ExactTrainingArguments") -> None:
    """Upload a finished run's folder in one commit.

    Raises:
        Refusal: see `open_repository`.
        Failure: the upload broke off; the run is finished all the same.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    repository = open_repository(training)
    files = files_to_upload(folder)
    try:
        commit = HfApi().create_commit(
            repo_id=repository,
            operations=[CommitOperationAdd(name, uploaded_content(folder, name, repository)) for name in files],
            commit_message=f"Upload {len(files)} files of a finished run",
            token=training.hub_token,
            revision=training.hub_revision,
        )
    except Exception as error:
        raise Failure(
            f"{folder}: is finished, but was not uploaded: {_told(error)}; run the same command again to upload it"
        ) from error
    say(f"Uploaded {len(files)} files to {commit.repo_url}: no predictions, no checkpoints")


def _told(error: Exception) -> str:
    """The start of what the Hub says, in one line."""
    return redacted(" ".join(str(error).split()))[:200] or type(error).__name__
