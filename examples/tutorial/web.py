# web.py
from typing import Annotated

from fastapi import FastAPI, HTTPException, Path

from taskq import JobFailed, JobNotFound, ResultTimeout
from tasks import q, write_report

api = FastAPI(lifespan=q.lifespan)
Name = Annotated[str, Path(pattern="^[a-z0-9-]{1,40}$")]


@api.post("/reports/{name}", status_code=202)
async def order(name: Name, pages: int = 5) -> dict[str, object]:
    job = await write_report.options(id=f"report:{name}").enqueue(name, pages)
    return {"job": job.id, "new": job.created}


@api.get("/reports/{name}")
async def show(name: Name) -> dict[str, object]:
    try:
        info = await write_report.job(f"report:{name}").info()
    except JobNotFound:
        raise HTTPException(404, "There is no such report.") from None
    written = info.progress.done if info.progress else 0
    return {"state": info.state, "written": written, "report": info.result}


@api.get("/reports/{name}/text")
async def read(name: Name) -> str:
    """Wait up to 10 s for the report."""
    try:
        return await write_report.job(f"report:{name}").result(timeout=10)
    except ResultTimeout:
        raise HTTPException(504, "The report is not ready yet.") from None
    except JobNotFound:
        raise HTTPException(404, "There is no such report.") from None
    except JobFailed as error:
        raise HTTPException(409, f"The report failed: {error.error_text}") from None
