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

/** Back with a code: asks for tokens, calls the API. `wrong`: as who stole the code and not the verifier. */
async function finish({ client, redirectUri, wrong }) {
  const { verifier, state } = JSON.parse(sessionStorage.getItem('login'));
  const back = new URLSearchParams(location.search);
  if (back.get('state') !== state) {
    return { state: back.get('state') };
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
  const { access_token, ...tokens } = await redeemed.json();
  const headers = access_token ? { authorization: `Bearer ${access_token}` } : {};
  const called = await fetch('/grants/1', { headers });
  return { state, status: redeemed.status, tokens, called: { status: called.status, said: await called.json() } };
}
