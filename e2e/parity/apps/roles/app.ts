import { Stack } from 'aws-cdk-lib';
import { ManagedPolicy, PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { app, env, variant, vary } from '../kit';

const stack = vary(new Stack(app, 'roles', { env }));
const role = new Role(stack, 'Named', { roleName: 'roles-named', assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
role.addToPolicy(new PolicyStatement({ actions: ['s3:GetObject'], resources: [`arn:aws:s3:::${variant}/*`] }));
new ManagedPolicy(stack, 'Managed', { statements: [new PolicyStatement({ actions: ['sqs:*'], resources: ['*'] })] });
