"""Banks on other machines: open them by URL, copy them into a store, and copy them to a bucket or the Hub.

A bank is copied into a directory on this machine, verified there, and only then renamed to its id. The modules:

- `addresses`: what a URL refers to.
- `origins`: what a server, a bucket and the Hub have in common; `over_http`, `buckets` and `hub` are the three.
- `retries`: how long to go on after errors that pass.
- `claims`: let one process download while others wait, also on a file system that several machines share.
- `downloads`: copy the files of one bank, in parallel, continuing what an interrupted process left.
- `copies`: the verified copy in a cache or a store.
- `opening` and `pushing`: what users call.
"""

from typing import TYPE_CHECKING

from costbank.lazy import lazy_names

if TYPE_CHECKING:
    from costbank.remote.opening import OfflineWarning, bank_cache, open_url, pull_bank
    from costbank.remote.pushing import push_bank
    from costbank.remote.retries import Patience

__all__ = ["OfflineWarning", "Patience", "bank_cache", "open_url", "pull_bank", "push_bank"]

if not TYPE_CHECKING:  # A type checker would accept any name.
    __getattr__, __dir__ = lazy_names(
        __name__,
        opening="OfflineWarning bank_cache open_url pull_bank",
        pushing="push_bank",
        retries="Patience",
    )
