import { LegacyStackSynthesizer, Stack } from 'aws-cdk-lib';
import { app, env, vary } from '../kit';

vary(new Stack(app, 'legacy', { env, synthesizer: new LegacyStackSynthesizer() }));
