"""The identity token that lets the canary through Cloud Run's own door. It never reaches the service."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

from ops.canary_gcloud import Gcloud, GcloudFailed
from ops.canary_rollout import Refused

GOOGLE_IAM = "https://iamcredentials.googleapis.com"
_TIMEOUT_S = 20.0
_REFUSALS = (401, 403)


@dataclass(frozen=True, slots=True)
class Entrance:
    """Gets a token as whoever gcloud is signed in as: a service account, a person, or a pipeline that borrows one."""

    gcloud: Gcloud = field(repr=False)
    deployer: str
    """The e-mail address of the account that a pipeline borrows where gcloud names none."""
    iam_url: str = GOOGLE_IAM

    def headers(self, url: str) -> Mapping[str, str]:
        """The header for the service at ``url``, for its tags' addresses too; empty where the service asks for none.

        Raises Refused where there is no token to be had and the service wants one.
        """
        asks: Sequence[Callable[[str], str]] = (self._for_audience, self._for_a_person, self._as_a_borrower)
        problems = []
        for ask in asks:
            try:
                return {"X-Serverless-Authorization": f"Bearer {ask(url)}"}
            except (GcloudFailed, httpx.HTTPError, ValueError, KeyError, TypeError) as failed:
                problems.append(f"{type(failed).__name__}: {failed}")
        if _is_refused(url):
            raise Refused(
                f"{url} lets nobody in without an identity token, and none was to be had: {'; '.join(problems)}"
            )
        return {}

    def _for_audience(self, url: str) -> str:
        return self.gcloud.run("auth", "print-identity-token", "--audiences", url)

    def _for_a_person(self, _url: str) -> str:
        # People's accounts get tokens without an audience only.
        return self.gcloud.run("auth", "print-identity-token")

    def _as_a_borrower(self, url: str) -> str:
        # With Workload Identity Federation gcloud makes access tokens of the borrowed account and no identity tokens;
        # the account may make its own (roles/iam.serviceAccountOpenIdTokenCreator on itself).
        account = self.gcloud.run("config", "get-value", "account")
        if not account.endswith(".gserviceaccount.com"):
            account = self.deployer
        answer = httpx.post(
            f"{self.iam_url}/v1/projects/-/serviceAccounts/{quote(account)}:generateIdToken",
            headers={"Authorization": f"Bearer {self.gcloud.run('auth', 'print-access-token')}"},
            json={"audience": url, "includeEmail": True},
            timeout=_TIMEOUT_S,
        )
        if answer.status_code != 200:
            raise GcloudFailed(f"generateIdToken of {account} answers {answer.status_code}: {answer.text[:300]}")
        token: str = answer.json()["token"]
        return token


def _is_refused(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=_TIMEOUT_S).status_code in _REFUSALS
    except httpx.HTTPError:
        return False  # what cannot be reached at all is the smoke test's to tell
