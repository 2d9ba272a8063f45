"""``saccade config``: shows configurations and their fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from saccade.cli_options import ConfigurationArgument, SetOption, interruptible
from saccade.errors import SaccadeError

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Shows run configurations and their fields.")


@app.command(
    "show",
    epilog="Examples:\n\n- `saccade config show`\n\n- `saccade config show my.yaml --set run.frames=100`\n\n"
    "- `saccade config show corridor > mine.yaml` makes a complete file to start from",
)
@interruptible
def config_show(
    configuration: ConfigurationArgument = "warehouse",
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="`configuration` and `sources` as JSON.")] = False,
) -> None:
    """Prints the resolved configuration, each field with where its value comes from."""
    from saccade.configuration import configuration_yaml, load_configuration

    loaded = load_configuration(configuration, overrides=overrides or ())
    if as_json:
        values = {"path": str(loaded.path), "configuration": loaded.config.model_dump(mode="json")}
        typer.echo(json.dumps({**values, "sources": loaded.sources}, indent=2, ensure_ascii=False))
    else:
        typer.echo(configuration_yaml(loaded.config, loaded.sources), nl=False)


@app.command("list", epilog="Example: `saccade config list`")
@interruptible
def config_list(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Lists the configurations that come with Saccade and those in `config/` of the working folder."""
    from saccade.configuration import load_configuration
    from saccade.paths import display, listing

    files = dict.fromkeys(
        file.resolve() for file in (*listing("configuration"), *listing("configuration", Path("config")))
    )
    rows = []
    for file in files:
        try:
            text, scene = (loaded := load_configuration(file)).config.description, loaded.config.scene
        except SaccadeError as error:
            text, scene = f"cannot be used: {str(error).splitlines()[0]}", ""
        rows.append({"name": file.stem, "path": str(file), "scene": scene, "description": text})
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        typer.secho(row["name"], bold=True, nl=False)
        typer.echo(f"  {display(row['path'])}\n    {row['description']}")


@app.command(
    "fields",
    epilog="Examples:\n\n- `saccade config fields`\n\n- `saccade config fields budgets` only those of one section",
)
@interruptible
def config_fields(
    section: Annotated[str | None, typer.Argument(help="Shows only fields that begin with this.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Lists every field of a configuration: type, limits, default, meaning."""
    from dataclasses import asdict

    from saccade.errors import ConfigurationError
    from saccade.fields import field_facts

    facts = [fact for fact in field_facts() if section is None or f"{fact.name}.".startswith(f"{section}.")]
    if not facts:
        raise ConfigurationError(f"there is no field that begins with {section!r}; see: saccade config fields")
    if as_json:
        typer.echo(json.dumps([asdict(fact) for fact in facts], indent=2, ensure_ascii=False))
        return
    for fact in facts:
        typer.secho(fact.name, bold=True, nl=False)
        default = "required" if fact.default == "required" else f"default {fact.default}"
        typer.echo(f"  {fact.type}, {default}")
        if fact.description:
            typer.echo(f"    {fact.description}")
