import { Stack } from 'aws-cdk-lib';
import { app, env, variant, vary } from '../kit';

const topic = (name: string) => `arn:aws:sns:${env.region}:${env.account}:${name}`;
vary(new Stack(app, 'notified', { env, notificationArns: [topic('one'), topic(variant)] }));
vary(new Stack(app, 'notified-none', { env, notificationArns: variant === 'one' ? [topic('one')] : [] }));
vary(new Stack(app, 'notified-silent', { env, notificationArns: variant === 'one' ? [topic('one')] : undefined }));
