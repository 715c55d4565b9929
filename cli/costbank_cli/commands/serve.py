"""`costbank serve`."""

import threading
import webbrowser
from typing import Any

import click

from costbank_cli.output import json_option, note, print_json, store_option

__all__ = ["command"]


@click.command("serve")
@store_option
@click.option("--host", help="Address to listen on; any but loopback needs a key. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on; 0 picks a free one. [default: 8137]")
@click.option("--workers", type=click.IntRange(1, 256), help="Number of processes that share the port. [default: 1]")
@click.option("--no-auth", is_flag=True, default=None, help="Serve on any address without a key.")
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@json_option
def command(open_page: bool, as_json: bool, **parameters: Any) -> None:
    """Serve a store's banks over HTTP, with a page to look at them.

    \b
    costbank serve --open

    Ctrl-C or SIGTERM stops the service after it has answered the running requests. Environment variables set the rest,
    such as COSTBANK_API_KEY, COSTBANK_API_KEYS_FILE, COSTBANK_MAX_K, COSTBANK_MAX_MEMORY_MB and COSTBANK_LOG_FORMAT.
    """
    from costbank_service import load_settings, run

    settings = load_settings(**{name: value for name, value in parameters.items() if value is not None})

    def announce(url: str) -> None:
        if as_json:
            print_json({"url": url, "store": str(settings.store)})
        else:
            click.echo(f"serving {settings.store} on {url}  (a page for browsers; routes: {url}/docs; Ctrl-C stops)")
            if not settings.store.is_dir():
                click.echo(
                    f"note: {settings.store} does not exist yet; its banks will be served once it does", err=True
                )

        if open_page:  # in a thread: a browser in this terminal would wait for the service, which has not begun
            threading.Thread(target=_open, args=(url,), daemon=True).start()

    run(settings, announce)


def _open(url: str) -> None:
    if not webbrowser.open(url):
        note(f"no browser can be started here; open {url} in one")
