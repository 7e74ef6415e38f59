"""Upload of an exported folder to the hub."""

from __future__ import annotations

from pathlib import Path

from mlkd.config.commands import PushConfig
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of


def push(folder: Path, config: PushConfig) -> str:
    """Create the repository if there is none, and upload the folder as one commit.

    Returns:
        Address of the commit.

    Raises:
        UserError: The hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(config.repo, private=config.private, exist_ok=True)
        return str(api.upload_folder(repo_id=config.repo, folder_path=folder))
    except Exception as error:  # the hub client raises its own, httpx's and OS errors
        raise UserError(
            f"push.repo={config.repo}: {reason_of(error)}; the export itself is in {folder}"
        ) from None
