"""The command line: flags in, one call of `jaxrecon.api` or `jaxrecon.runs`, one line on error.

    python -m jaxrecon.main --config=configs/metahmr.py[:preset] --workdir=DIR --mode=train
    python -m jaxrecon.main --workdir=DIR --mode=evaluate [--checkpoint=DIR] [--steps=14]
    python -m jaxrecon.main --mode=reconstruct --input=photo.jpg --keypoints=photo.json --output=out
    python -m jaxrecon.main --mode=reconstruct --input=walk.mp4 --keypoints=folder --output=out
    python -m jaxrecon.main --mode=reconstruct --workdir=DIR --input=keypoints.npz --output=out
    python -m jaxrecon.main --mode=convert --input=published.pt --output=DIR --config=...

`--config.group.field=value` changes any field of the config. A training that is run again with
the same command continues where it stopped. Exit status: 0 done, 2 a mistake in the input (one
line says which), 143 stopped by a signal after saving.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from jaxrecon.errors import MissingFiles, UserError

MODES = ("train", "evaluate", "reconstruct", "convert")


def define_flags() -> flags.FlagValues:
    """The flags of one call; not absl's global ones, so that `main` can be called again."""
    values = flags.FlagValues()

    def text(name: str, default: str | None, help_text: str) -> None:
        flags.DEFINE_string(name, default, help_text, flag_values=values)

    text("config", None, "a config by name or path, with an optional :preset (default metahmr)")
    text("workdir", None, "the run folder (default runs/<config>)")
    flags.DEFINE_enum("mode", "train", MODES, "what to do", flag_values=values)
    text(
        "input",
        None,
        "reconstruct: a photograph, video, folder, or keypoints to lift; "
        "convert: a .pt (main=a.pt,aux=b.pt) or a run",
    )
    text("keypoints", None, "reconstruct: 2D keypoints (OpenPose JSON, ...); a folder for frames")
    text("bbox", None, "reconstruct: x,y,width,height in pixels, or a JSON file")
    flags.DEFINE_bool(
        "smooth", False, "reconstruct: take jitter and gaps out of frames", flag_values=values
    )
    flags.DEFINE_float(
        "fps", None, "reconstruct: frames a second (a video's own, or 30)", flag_values=values
    )
    text("joint_set", None, "reconstruct: the joint set of keypoints that do not name it")
    flags.DEFINE_float("focal_length", None, "reconstruct: pixels, if known", flag_values=values)
    text("output", None, "reconstruct: the folder to write; convert: the file or folder")
    text("checkpoint", None, "evaluate, reconstruct: trained weights (default: the workdir's)")
    flags.DEFINE_integer("steps", None, "steps of test-time optimisation", flag_values=values)
    flags.DEFINE_bool("strict", True, "convert: refuse weights that do not fit", flag_values=values)
    flags.DEFINE_bool("distributed", None, "join a multi-host run", flag_values=values)
    flags.DEFINE_bool("help", False, "print this and stop", short_name="h", flag_values=values)
    return values


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    arguments = list(sys.argv if argv is None else argv)
    try:
        options, overrides = parse(arguments)
        if options.help:
            print(__doc__ + options.main_module_help())
            return 0
        return _COMMANDS[options.mode](options, overrides)
    except MissingFiles as error:
        print(f"jaxrecon: {error}", file=sys.stderr)  # may be a list
        return 2
    except UserError as error:
        print(f"jaxrecon: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        # The machine's faults (disk full, no permission) are not the program's either.
        print(f"jaxrecon: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxrecon: interrupted", file=sys.stderr)
        return 130


def run() -> None:
    """The console script."""
    sys.exit(main())


def parse(arguments: Sequence[str]) -> tuple[flags.FlagValues, dict[str, str]]:
    """Flags, and the overrides `--config.x=y` or `--config.x y`.

    Raises:
      UserError: unknown or malformed flags, words that belong to no flag.
    """
    rest, overrides = [arguments[0]], {}
    waiting = list(arguments[1:])
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith(("--config.", "-config.")):
            rest.append(word)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UserError(f"{name} has no value; write {name}=value")
            value = waiting.pop(0)
        overrides[name.split("config.", 1)[1]] = value
    options = define_flags()
    try:
        left = options(rest)[1:]
    except flags.Error as error:
        raise UserError(f"{str(error).rstrip('.')}; --help lists the flags") from error
    if left:
        raise UserError(f"{left[0]!r} belongs to no flag; write --flag=value")
    return options, overrides


def _train(options: Any, overrides: dict[str, str]) -> int:
    from jaxrecon import api, pose_runs, runs
    from jaxrecon.training.parallel import initialize_hosts

    initialize_hosts(options.distributed)
    config = options.config or "metahmr"
    workdir = Path(options.workdir or api.default_workdir(config))
    if pose_runs.is_pose_run(api.load_config(config)):
        return pose_runs.command_train(api.load_config(config, overrides), workdir)
    if options.steps is not None:
        overrides = {**overrides, "tto.steps": str(options.steps)}
    resolved, system, result = runs.train_run(api.load_config(config, overrides), workdir)
    if result.stopped is not None:
        return 0 if result.stopped == "time limit" else 143
    api.finish(api.Reconstructor(resolved, system, result.variables, result.step), workdir)
    return 0


def _evaluate(options: Any, overrides: dict[str, str]) -> int:
    from jaxrecon import api, pose_api, pose_runs
    from jaxrecon.training.parallel import initialize_hosts

    initialize_hosts(options.distributed)
    workdir = Path(options.workdir or api.default_workdir(options.config or "metahmr"))
    if pose_runs.saved_pose_run(options.checkpoint or workdir):
        lifter = pose_api.load_lifter(options.checkpoint or workdir, overrides)
        print(lifter.evaluate(workdir).table())
        print(f"written to {workdir / 'evaluation.json'}", file=sys.stderr)
        return 0
    reconstructor = api.load_reconstructor(options.checkpoint or workdir, **overrides)
    evaluation = reconstructor.evaluate(options.steps, workdir=workdir)
    print(evaluation.table())
    written = [workdir / "evaluation.json", *evaluation.files]
    print("written to " + ", ".join(str(path) for path in written), file=sys.stderr)
    return 0


def _reconstruct(options: Any, overrides: dict[str, str]) -> int:
    from jaxrecon import api, pose_api, pose_runs, results
    from jaxrecon.reconstruction import Reconstruction

    source, output = _required(options, "input"), Path(_required(options, "output"))
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file; name a folder for the results")
    trained = options.checkpoint or options.workdir
    if trained is not None and pose_runs.saved_pose_run(trained):
        focal = options.focal_length
        print(pose_api.command_reconstruct(trained, source, output, focal, overrides))
        return 0
    bbox = _box(options.bbox)
    evidence = {
        name: options[name].value for name in ("joint_set", "focal_length", "smooth", "fps")
    }
    checkpoint = options.checkpoint or _trained_workdir(options.workdir)
    found: Any
    if checkpoint is not None:
        reconstructor = api.load_reconstructor(checkpoint, **overrides)
        found = reconstructor.reconstruct(
            source, options.keypoints, bbox, options.steps, **evidence
        )
    elif options.keypoints is not None:
        config = api.load_config(options.config or "metahmr", overrides)
        found = api.fit_photo(source, options.keypoints, bbox, body=config.body.path, **evidence)
    else:
        raise UserError(
            f"to reconstruct {source} give --keypoints (2D keypoints, fitted by optimisation), or "
            "trained weights in --checkpoint or --workdir, or both"
        )
    if isinstance(found, Reconstruction):
        print(results.write_reconstruction(found, output, Path(source).stem))
        return 0
    written = found.save(output, progress=True)
    print(found.summary())
    print("written: " + ", ".join(str(path) for path in written))
    return 0


def _convert(options: Any, overrides: dict[str, str]) -> int:
    from jaxrecon import api, pose_runs

    config = api.load_config(options.config or "metahmr:resnet50", overrides)
    source, target = _required(options, "input"), _required(options, "output")
    if pose_runs.is_pose_run(config) or pose_runs.saved_pose_run(source):
        print(pose_runs.convert(source, target, config, options.strict))
        return 0
    print(api.convert(source, target, config, options.strict))
    return 0


_COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "reconstruct": _reconstruct,
    "convert": _convert,
}


def _required(options: Any, name: str) -> str:
    value = options[name].value
    if not value:
        raise UserError(f"--mode={options.mode} needs --{name}")
    return value


def _box(text: str | None) -> Any:
    """`x,y,width,height` as numbers; anything else is a file."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return text
    if len(numbers) != 4:
        raise UserError(f"--bbox={text} has {len(numbers)} numbers; x,y,width,height are needed")
    return numbers


def _trained_workdir(workdir: str | None) -> Path | None:
    from jaxrecon.training.checkpoints import has_checkpoint

    if workdir is None:
        return None
    if not has_checkpoint(workdir):
        raise UserError(
            f"--workdir={workdir} has no checkpoint; train there first, or leave it out"
        )
    return Path(workdir)


if __name__ == "__main__":
    run()
