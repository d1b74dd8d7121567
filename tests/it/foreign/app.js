// The part that an application in a page has in the code flow with PKCE. The browser test runs it in a page.

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

/** Keeps what only this browser may know, and says where the person has to go. */
async function begin({ client, redirectUri }) {
  const [verifier, state] = [random(), random()];
  sessionStorage.setItem('login', JSON.stringify({ verifier, state }));
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier));
  const query = new URLSearchParams({
    response_type: 'code',
    client_id: client,
    redirect_uri: redirectUri,
    scope: 'openid profile email offline_access',
    state,
    code_challenge: base64url(new Uint8Array(digest)),
    code_challenge_method: 'S256',
  });
  return { url: new URL(`/oauth/authorize?${query}`, location).href, state };
}

/** Back with a code: asks for tokens, calls the API. `wrong`: as one who stole the code and has no verifier. */
async function finish({ client, redirectUri, wrong }) {
  const { verifier, state } = JSON.parse(sessionStorage.getItem('login'));
  const back = new URLSearchParams(location.search);
  if (back.get('state') !== state) {
    throw new Error('somebody else began this login');
  }
  const redeemed = await fetch('/oauth/token', {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      client_id: client,
      redirect_uri: redirectUri,
      code: back.get('code'),
      code_verifier: wrong ? random() : verifier,
    }),
  });
  const { access_token, refresh_token, token_type, error } = await redeemed.json();
  const headers = access_token ? { authorization: `Bearer ${access_token}` } : {};
  const called = await fetch('/grants/1', { headers });
  const said = await called.json();
  const person = said.headers?.find(([name]) => name === 'x-bonterra-auth-id')?.[1];
  return {
    redeemed: { status: redeemed.status, type: token_type, renewable: Boolean(refresh_token), error },
    called: { status: called.status, reason: said.reason, person },
  };
}
