// The gateway as users of oauth4webapi meet it: the same by hand, step by step.

import { api, asker, backend, endpoints, gateway, issuer, logIn, machine, redirectUri, refusal, tell, web } from './common.mjs';
import * as oauth from 'oauth4webapi';

const plain = { [oauth.allowInsecureRequests]: true };
const story = {};

// The gateway is asked, and the issuer's name expected: RFC 8414 §3.3 compares with the name that is trusted.
const document = () => oauth.discoveryRequest(new URL(gateway), plain);
story.discovery_as_the_gateway = await refusal(document().then((response) => oauth.processDiscoveryResponse(new URL(gateway), response)));
const found = await oauth.processDiscoveryResponse(new URL(issuer), await document());
story.discovered = found.issuer === issuer;
const server = { ...found, ...endpoints };

// The gateway as a protected resource (RFC 9728) names the issuer.
const resource = new URL(gateway);
const metadata = await oauth.processResourceDiscoveryResponse(resource, await oauth.resourceDiscoveryRequest(resource, plain));
story.resource = metadata.authorization_servers[0] === issuer;

const call = async (token) => (await oauth.protectedResourceRequest(token, 'GET', api, undefined, undefined, plain)).status;
const client = ({ id }) => ({ client_id: id });

// client_credentials
story.machine = {};
const asMachine = async (authentication) => {
  const parameters = { audience: 'https://api.bonterra.network' };
  const response = await oauth.clientCredentialsGrantRequest(server, client(machine), authentication, parameters, plain);
  return oauth.processClientCredentialsResponse(server, client(machine), response);
};
for (const [name, way] of Object.entries({ basic: oauth.ClientSecretBasic, post: oauth.ClientSecretPost })) {
  const tokens = await asMachine(way(machine.secret));
  story.machine[name] = { type: tokens.token_type, lifetime: tokens.expires_in, call: await call(tokens.access_token) };
  story.machine[`wrong ${name}`] = await refusal(asMachine(way('not-the-secret')));
}
story.no_token = await refusal(call('x.y.z'));

// authorization_code with PKCE
async function logInAs(who, authentication, { wrong } = {}) {
  const [verifier, state, nonce] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState(), oauth.generateRandomNonce()];
  const authorization = new URL(server.authorization_endpoint);
  authorization.search = new URLSearchParams({
    client_id: who.id,
    redirect_uri: redirectUri,
    response_type: 'code',
    scope: 'openid profile email offline_access',
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
  });
  const back = oauth.validateAuthResponse(server, client(who), await logIn(authorization), state);
  const sent = wrong ? oauth.generateRandomCodeVerifier() : verifier;
  const response = await oauth.authorizationCodeGrantRequest(server, client(who), authentication, back, redirectUri, sent, plain);
  const tokens = await oauth.processAuthorizationCodeResponse(server, client(who), response, { expectedNonce: nonce, requireIdToken: true });
  await oauth.validateApplicationLevelSignature(server, response, plain);
  return tokens;
}

const logins = { public: [web, oauth.None()], basic: [backend, oauth.ClientSecretBasic(backend.secret)], post: [backend, oauth.ClientSecretPost(backend.secret)] };
story.person = {};
for (const [name, [who, authentication]] of Object.entries(logins)) {
  const tokens = await logInAs(who, authentication);
  const { sub } = oauth.getValidatedIdTokenClaims(tokens);
  const response = await oauth.userInfoRequest(server, client(who), tokens.access_token, plain);
  const user = await oauth.processUserInfoResponse(server, client(who), sub, response);
  story.person[name] = { type: tokens.token_type, email: user.email, call: await call(tokens.access_token) };
}
story.wrong_verifier = await refusal(logInAs(web, oauth.None(), { wrong: true }));

// refresh_token, with rotation
const refresh = async (token) => {
  const response = await oauth.refreshTokenGrantRequest(server, client(web), oauth.None(), token, plain);
  return oauth.processRefreshTokenResponse(server, client(web), response);
};
const first = await logInAs(web, oauth.None());
const second = await refresh(first.refresh_token);
const third = await refresh(second.refresh_token);
const different = new Set([first, second, third].map((tokens) => tokens.refresh_token)).size;
story.refreshed = { different, call: await call(third.access_token) };
story.no_refresh = await refusal(refresh('v1.nothing'));

const introspect = async (secret, token) => {
  const response = await oauth.introspectionRequest(server, client(asker), oauth.ClientSecretBasic(secret), token, plain);
  return oauth.processIntrospectionResponse(server, client(asker), response);
};
const revoke = async (token, hint) => {
  const options = { ...plain, additionalParameters: { token_type_hint: hint } };
  await oauth.processRevocationResponse(await oauth.revocationRequest(server, client(web), oauth.None(), token, options));
};
const before = await introspect(asker.secret, third.access_token);
story.introspected = { active: before.active, iss: before.iss === issuer, sub: before.sub === oauth.getValidatedIdTokenClaims(first).sub };
story.stranger = await refusal(introspect('not-the-secret', third.access_token));

await revoke(third.access_token, 'access_token');
story.revoked = await refusal(call(third.access_token));
story.introspected_after = await introspect(asker.secret, third.access_token);
await revoke(third.refresh_token, 'refresh_token');
story.revoked_refresh = await refusal(refresh(third.refresh_token));
await revoke('never seen', 'access_token');

// An old refresh token that is used once more ends the family.
const family = await logInAs(web, oauth.None());
const next = await refresh(family.refresh_token);
story.reused = await refusal(refresh(family.refresh_token));
story.ended = await refusal(refresh(next.refresh_token));

tell(story);
