"""Who may ask about jobs: those whom `auth` lets in, and never the page of another site."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import Depends, HTTPException, Request, params

from taskq.core.errors import ConfigError

__all__ = ["guards"]

ELSEWHERE = (
    "this application shows jobs to its own machine only (development=True); to show them to "
    "others it needs job_router(q, auth=...)"
)
CROSS_SITE = (
    "pages of other sites may not ask about jobs here; the application can name them: "
    'job_router(q, auth=..., origins=["https://app.example.org"])'
)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of a proxy: who asks is not who connects."""

_IN_PROCESS = "testclient"
"""What Starlette's test client calls itself. A real connection has an address."""


def guards(auth: Any, development: bool, origins: Sequence[str]) -> list[params.Depends]:
    """The dependencies of all endpoints, in their order.

    Raises `ConfigError` unless it is said who may ask.
    """
    return [Depends(_same_site(origins)), _who(auth, development)]


def _who(auth: Any, development: bool) -> params.Depends:
    if auth is None:
        if development:
            return Depends(_this_machine_only)
        raise ConfigError(
            "job_router(q) would show and cancel the jobs of everybody: give it a dependency that "
            "raises HTTPException for those who may not, auth=current_user; or, on your own "
            "machine, development=True, which answers that machine alone"
        )
    if development:
        raise ConfigError("job_router has auth= and development=True; use one of them")
    if isinstance(auth, params.Depends):
        return auth
    if callable(auth):
        return Depends(auth)
    raise ConfigError(
        f"auth={auth!r}: use a dependency, which raises HTTPException for those who may not, such "
        "as auth=current_admin or auth=Depends(current_admin)"
    )


def _same_site(origins: Sequence[str]) -> Callable[[Request], Awaitable[None]]:
    if isinstance(origins, str):
        raise ConfigError(f"origins={origins!r}: use a list, such as [{origins!r}]")
    known = frozenset(origin.rstrip("/") for origin in origins)

    async def same_site(request: Request) -> None:
        """Refuse what the page of another site asks: its reader's cookies are not its own."""
        origin = request.headers.get("origin")
        if origin in known:
            return
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            foreign = site not in ("same-origin", "none")
        else:
            # Browsers from before 2023, and everything that is not a browser: that sends neither.
            foreign = origin is not None and origin.partition("://")[2] != request.url.netloc
        if foreign:
            raise HTTPException(403, CROSS_SITE)

    return same_site


async def _this_machine_only(request: Request) -> None:
    """Refuse whoever is elsewhere, and pages of elsewhere that name this machine as their own."""
    client = request.client
    own = client is not None and _is_own(client.host)
    if not own or any(name in request.headers for name in _FORWARDED) or _is_foreign(request):
        raise HTTPException(403, ELSEWHERE)


def _is_own(host: str) -> bool:
    if host in (_IN_PROCESS, "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_foreign(request: Request) -> bool:
    # A name with a dot may be anybody's, though it leads here for the moment (DNS rebinding).
    host = request.url.hostname or ""
    return "." in host and not _is_own(host)
