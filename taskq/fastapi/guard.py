"""Who may ask about jobs: whoever `auth` lets in, and without it this machine alone."""

from __future__ import annotations

import ipaddress
from typing import Any

from fastapi import Depends, HTTPException, Request, params

from taskq.core.errors import ConfigError

__all__ = ["guard"]

REFUSAL = (
    "jobs are shown to this machine only, until the application says who else may see them: "
    "job_router(q, auth=...)"
)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of a proxy: who asks is not who connects."""

_IN_PROCESS = "testclient"
"""What Starlette's test client calls itself. A real connection has an address."""


def guard(auth: Any) -> params.Depends:
    """The dependency of all endpoints.

    Raises `ConfigError` for what is no dependency.
    """
    if auth is None:
        return Depends(_this_machine_only)
    if isinstance(auth, params.Depends):
        return auth
    if callable(auth):
        return Depends(auth)
    raise ConfigError(
        f"auth={auth!r}: type a dependency, which raises HTTPException for those who may not, such "
        "as auth=current_admin or auth=Depends(current_admin)"
    )


async def _this_machine_only(request: Request) -> None:
    """Refuse whoever is elsewhere, and pages of elsewhere that name this machine as their own."""
    client = request.client
    own = client is not None and _is_own(client.host)
    if not own or any(name in request.headers for name in _FORWARDED) or _is_foreign(request):
        raise HTTPException(403, REFUSAL)


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
