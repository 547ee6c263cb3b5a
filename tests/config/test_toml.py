"""What people write for TOML, and what they are told."""

import pytest

from polaris.config.toml import read_toml
from polaris.errors import Refused


def write(tmp_path, text):
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("path = models/smollm2  # mine", 'is not valid TOML; text wants straight quotes: path = "models/smollm2"'),
        ("path = /data/x.jsonl", 'path = "/data/x.jsonl"'),
        ("path = “runs/x”", 'path = "runs/x"'),
        ("fused_modules = False", "write fused_modules = false"),
        ("revision = None", "leave the line out"),
        ("temperature = .5", "write temperature = 0.5"),
        ("suite = [a, b]", "text in a list wants quotes"),
        ("path: x", "each line is `name = value`"),
        (r'suffix = "in \(x\)"', "a backslash in double quotes is written twice"),
        ("lr = 1e-5,", "Expected newline"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_toml_is_shown_with_what_to_write(tmp_path, line, message):
    with pytest.raises(Refused) as error:
        read_toml(write(tmp_path, f"[model]\n{line}\nx = 1\n"))
    assert message in str(error.value)
    assert "my.toml, line 2: `" in str(error.value)


@pytest.mark.parametrize("macro", ["boxed{}", "frac12", "text{x}", "rm x"])
def test_a_macro_whose_backslash_toml_reads_as_an_escape_is_refused(tmp_path, macro):
    with pytest.raises(Refused, match=r"data\.prompt_suffix = .* holds a control character; a backslash in double quotes is written twice"):
        read_toml(write(tmp_path, f'[data]\nprompt_suffix = "in \\{macro}"'))
    for quoted in (f'"in \\\\{macro}"', f"'in \\{macro}'"):
        assert read_toml(write(tmp_path, f"[data]\nprompt_suffix = {quoted}")) == {"data": {"prompt_suffix": f"in \\{macro}"}}


def test_lists_and_windows_files_are_read(tmp_path):
    path = write(tmp_path, '\ufeffname = "é"\r\n[data]\r\ndecontaminate = ["a", "b"]\r\n')
    assert read_toml(path) == {"name": "é", "data": {"decontaminate": ["a", "b"]}}
    with pytest.raises(Refused, match=r"data\.decontaminate\.1 = .* control character"):
        read_toml(write(tmp_path, '[data]\ndecontaminate = ["a", "b\\f"]'))


@pytest.mark.parametrize("text", ['"a\\tb"', "'a\tb'", '"""\n\tif x:\n\t\tx\n"""', '"\\u0041\\n"'])
def test_tabs_that_are_no_lost_backslash_are_text(tmp_path, text):
    assert "data" in read_toml(write(tmp_path, f"[data]\nprompt_suffix = {text}\n"))
