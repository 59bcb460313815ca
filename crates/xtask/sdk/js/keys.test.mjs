// Keys that an identity provider publishes and changes, as the unmodified npm client `centrifuge` meets them.

import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { Backend, hooked } from './hooked.mjs';
import { connect } from './support.mjs';

const encode = (part) => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url');

// A key of that name, as it is published, and tokens signed with it.
function key(kid, type, options, alg) {
  const { privateKey, publicKey } = generateKeyPairSync(type, options);
  return {
    jwk: { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' },
    token(claims) {
      const message = `${encode({ alg, kid })}.${encode(claims)}`;
      const hash = alg === 'EdDSA' ? null : 'sha256';
      const signature = sign(hash, Buffer.from(message), { key: privateKey, dsaEncoding: 'ieee-p1363' });
      return `${message}.${signature.toString('base64url')}`;
    },
  };
}

test('a provider may publish keys of several kinds, and change them', async (t) => {
  const first = key('first', 'ec', { namedCurve: 'P-256' }, 'ES256');
  const others = [key('r', 'rsa', { modulusLength: 2048 }, 'RS256'), key('e', 'ed25519', {}, 'EdDSA')];
  const provider = new Backend();
  provider.pages['/jwks.json'] = { keys: [first, ...others].map(({ jwk }) => jwk) };
  await provider.start();
  t.after(() => provider.stop());
  const gateway = await hooked(provider, {
    TIDEGATE_WEBHOOKS__CONNECT: '',
    TIDEGATE_WEBHOOKS__REFRESH: '',
    TIDEGATE_TOKEN__JWKS_URL: `http://127.0.0.1:${provider.port}/jwks.json`,
  });
  t.after(() => gateway.end());
  const at = gateway.at('json');
  // Whoever comes before the first fetch is told to try again, which the library does.
  for (const { token } of [first, ...others]) await connect(t, at, { token: token({ sub: '42' }) });

  const next = key('next', 'ec', { namedCurve: 'P-256' }, 'ES256');
  provider.pages['/jwks.json'] = { keys: [next.jwk] };
  const client = await connect(t, at, { token: next.token({ sub: '42' }) });
  assert.equal(client.states.all.at(-1).state, 'connected');
  const fetches = await gateway.metric('tidegate_webhook_calls_total{event="jwks",outcome="ok"}');
  assert.equal(fetches, 2, 'once at the start, and once because a key was not known');
});
