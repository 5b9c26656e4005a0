"""Whether the processes that were asked for are there, and whether the way they were launched can leave a model.

`accelerate launch --cpu --num_processes 2` starts a single process without a word, and so does a config file that says
MULTI_CPU, where there is no mpirun: the run would take twice as long, at half the batch, and nobody would know.
"""

import os
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import psutil

from two_stage.command_line.exits import Refusal

# what torch's launchers and the mpirun of each MPI call the number of all processes, as accelerate reads it
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# how accelerate's launcher is called, with an interpreter and its flags before it
LAUNCHERS = (["accelerate", "launch"], ["accelerate-launch"], ["accelerate.commands.launch"], ["launch.py"])


def check_launch(script: str, trains: bool = True) -> None:
    """Refuse a launch that lacks processes, or at whose end there would be no model.

    Args:
        script: its name, for the command that would do.
        trains: whether processes can share its work; if not, each would do all of it, in one folder, and hand its rank
            on to the scripts that it calls.

    Raises:
        Refusal: accelerate was asked for another number of processes than there are; or its FSDP or DeepSpeed config
            keeps the whole model from being read or saved; or several were started of a script that trains nothing.
    """
    world = next((int(size) for name in WORLD_SIZES if (size := os.environ.get(name, "")).isdigit()), 1)
    asked = asked_processes(_parent_command())
    if not trains and (several := max(world, asked or 1)) > 1:
        raise Refusal(f"works as one process, and {several} were asked for; start it by `python {script} …` alone")
    if asked is not None and asked > 1 and asked != world:
        raise Refusal(
            f"accelerate launch was asked for {asked} processes and started {world}; on this machine's cores launch "
            f"them by `torchrun --nproc_per_node {asked} {script} … --use_cpu`, or by `accelerate launch --multi_gpu "
            f"--num_processes {asked} {script} … --use_cpu`; on GPUs by the same without --use_cpu"
        )
    if wrong := what_keeps_the_model(dict(os.environ)):
        raise Refusal(f"{wrong} (recipes/accelerate has configs that do)")


def asked_processes(command: list[str]) -> int | None:
    """How many processes an `accelerate launch` was asked for, by flag or config file.

    Args:
        command: the words of any command.

    Returns:
        None where it is no `accelerate launch`, or does not say how many.
    """
    launchers = {way[-1] for way in LAUNCHERS}
    names = [Path(word).name for word in command]
    script = next((at for at, name in enumerate(names) if name.endswith(".py") and name not in launchers), len(names))
    names = names[:script]
    starts = [at + len(way) for at in range(len(names)) for way in LAUNCHERS if names[at : at + len(way)] == way]
    if not starts:
        return None
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    try:
        with redirect_stderr(StringIO()):  # of a command that is another program's after all
            launched, _ = launch_command_parser().parse_known_args(command[starts[0] :])
        if launched.num_processes is not None or launched.tpu:  # on a TPU it forks them itself
            return None if launched.tpu else launched.num_processes
        # as the launcher itself: with --cpu the machine's own config file does not count, one that is named does
        if launched.config_file or (Path(default_config_file).is_file() and not launched.cpu):
            return getattr(load_config_from_file(launched.config_file), "num_processes", None)
    except (SystemExit, OSError, ValueError):
        return None
    return None


def check_shared_out(on_gpu: bool) -> None:
    """Refuse FSDP without a GPU.

    Raises:
        Refusal: accelerate would leave it out without a word, and each process would hold the whole model.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and not on_gpu:
        raise Refusal(
            "FSDP shares a model out over GPUs alone, and accelerate would leave it out here without a word; launch "
            "with --config_file recipes/accelerate/cpu_processes.yaml"
        )


def _parent_command() -> list[str]:
    """The words of the command that started this process; none where that cannot be known."""
    try:
        parent = psutil.Process().parent()
        return parent.cmdline() if parent else []
    except psutil.Error:
        return []


def is_shared_out() -> bool:
    """Whether FSDP or DeepSpeed shares out a model when it is trained, as accelerate's launcher says."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED"))


def what_keeps_the_model(environment: dict[str, str]) -> str | None:
    """Which setting of accelerate's config would leave the run without weights to start from or to save.

    Args:
        environment: as accelerate's launcher sets it.

    Returns:
        The setting, why it will not do, and the one that does; None where all is well.
    """

    def says(name: str, value: str) -> bool:
        return environment.get(name, "").lower() == value

    if says("ACCELERATE_USE_FSDP", "true"):
        if environment.get("FSDP_VERSION", "2") != "2":
            return "fsdp_version 1: its flat parameters have no learning rates of their own; set fsdp_version: 2"
        if says("FSDP_CPU_RAM_EFFICIENT_LOADING", "true"):
            return "fsdp_cpu_ram_efficient_loading: every process checks all weights; set it to false"
        if not says("FSDP_STATE_DICT_TYPE", "full_state_dict"):
            return "fsdp_state_dict_type: no whole model would be saved; set it to FULL_STATE_DICT"
    if says("ACCELERATE_USE_DEEPSPEED", "true") and environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3":
        if says("ACCELERATE_DEEPSPEED_ZERO3_INIT", "true"):
            return "zero3_init_flag: every process checks all weights; set it to false"
        if not says("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL", "true"):
            return "zero3_save_16bit_model: no whole model would be saved; set it to true"
    return None
