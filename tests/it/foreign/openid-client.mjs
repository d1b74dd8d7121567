// The gateway as users of openid-client meet it.

import { api, asker, backend, endpoints, gateway, issuer, logIn, machine, redirectUri, refusal, tell, web } from './common.mjs';
import * as client from 'openid-client';

const plain = { execute: [client.allowInsecureRequests] };
const story = {};

// The document is the issuer's, under its own name: asked for in the gateway's it is refused, as RFC 8414 §3.3 wants.
story.discovery_as_the_gateway = await refusal(client.discovery(new URL(gateway), web.id, undefined, client.None(), plain));

// Asked for in the issuer's name, and fetched from the gateway, it is right.
const found = await client.discovery(new URL(issuer), web.id, undefined, client.None(), {
  ...plain,
  [client.customFetch]: (url, options) => fetch(url.replace(issuer, `${gateway}/`), options),
});
story.discovered = found.serverMetadata().issuer === issuer;

// From here on every endpoint is the gateway's. ID tokens are checked with the keys that it shows.
const server = { ...found.serverMetadata(), ...endpoints };
function as({ id }, authentication) {
  const config = new client.Configuration(server, id, undefined, authentication);
  client.allowInsecureRequests(config);
  client.enableNonRepudiationChecks(config);
  return config;
}
const call = async (config, token) => (await client.fetchProtectedResource(config, token, api, 'GET')).status;

// client_credentials
story.machine = {};
for (const [name, way] of Object.entries({ basic: client.ClientSecretBasic, post: client.ClientSecretPost })) {
  const config = as(machine, way(machine.secret));
  const tokens = await client.clientCredentialsGrant(config, { audience: 'https://api.bonterra.network' });
  story.machine[name] = { type: tokens.token_type, lifetime: tokens.expires_in, call: await call(config, tokens.access_token) };
  const wrong = as(machine, way('not-the-secret'));
  story.machine[`wrong ${name}`] = await refusal(client.clientCredentialsGrant(wrong));
}
story.no_token = await refusal(call(as(machine, client.None()), 'x.y.z'));

// authorization_code with PKCE. What the browser is sent to, and what it brings back, the library checks.
async function logInAs(config, { wrong } = {}) {
  const [verifier, state, nonce] = [client.randomPKCECodeVerifier(), client.randomState(), client.randomNonce()];
  const back = await logIn(client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid profile email offline_access',
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
  }));
  const pkceCodeVerifier = wrong ? client.randomPKCECodeVerifier() : verifier;
  return client.authorizationCodeGrant(config, back, { pkceCodeVerifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true });
}

const logins = { public: [web, client.None()], basic: [backend, client.ClientSecretBasic(backend.secret)], post: [backend, client.ClientSecretPost(backend.secret)] };
story.person = {};
for (const [name, [who, authentication]] of Object.entries(logins)) {
  const config = as(who, authentication);
  const tokens = await logInAs(config);
  const { sub } = tokens.claims();
  const user = await client.fetchUserInfo(config, tokens.access_token, sub);
  story.person[name] = { type: tokens.token_type, email: user.email, call: await call(config, tokens.access_token) };
}
const app = as(web, client.None());
story.wrong_verifier = await refusal(logInAs(app, { wrong: true }));

// refresh_token, with rotation
const first = await logInAs(app);
const second = await client.refreshTokenGrant(app, first.refresh_token);
const third = await client.refreshTokenGrant(app, second.refresh_token);
const different = new Set([first, second, third].map((tokens) => tokens.refresh_token)).size;
story.refreshed = { different, call: await call(app, third.access_token) };
story.no_refresh = await refusal(client.refreshTokenGrant(app, 'v1.nothing'));

const resource = as(asker, client.ClientSecretBasic(asker.secret));
const before = await client.tokenIntrospection(resource, third.access_token);
story.introspected = { active: before.active, iss: before.iss === issuer, sub: before.sub === first.claims().sub };
story.stranger = await refusal(client.tokenIntrospection(as(asker, client.ClientSecretBasic('not-the-secret')), third.access_token));

await client.tokenRevocation(app, third.access_token, { token_type_hint: 'access_token' });
story.revoked = await refusal(call(app, third.access_token));
story.introspected_after = await client.tokenIntrospection(resource, third.access_token);
await client.tokenRevocation(app, third.refresh_token, { token_type_hint: 'refresh_token' });
story.revoked_refresh = await refusal(client.refreshTokenGrant(app, third.refresh_token));
await client.tokenRevocation(app, 'never seen');

// An old refresh token that is used once more ends the family.
const family = await logInAs(app);
const next = await client.refreshTokenGrant(app, family.refresh_token);
story.reused = await refusal(client.refreshTokenGrant(app, family.refresh_token));
story.ended = await refusal(client.refreshTokenGrant(app, next.refresh_token));

tell(story);
