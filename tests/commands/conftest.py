import pytest

from polaris import cli


@pytest.fixture
def command(monkeypatch, capsys):
    """`polaris ARGUMENTS` in this process: exit status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["polaris", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code
        return (status, *capsys.readouterr())

    return run
